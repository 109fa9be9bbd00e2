#include "cpu/route.h"

#include <cstddef>

#include "common/convert.h"

namespace trimoe::cpu {
namespace {

int64_t id_at(const RouterOutput& router, int64_t token, int64_t slot) {
  const int64_t index = token * router.ids_row_stride + slot * router.ids_col_stride;
  return router.ids_are_int64 ? static_cast<const int64_t*>(router.ids)[index]
                              : static_cast<const int32_t*>(router.ids)[index];
}

float weight_at(const RouterOutput& router, int64_t token, int64_t slot) {
  const int64_t index = token * router.weights_row_stride + slot * router.weights_col_stride;
  switch (router.weights_dtype) {
    case DType::kF32:
      return static_cast<const float*>(router.weights)[index];
    case DType::kBf16:
      return to_f32(static_cast<const Bf16*>(router.weights)[index]);
    case DType::kF16:
      return to_f32(static_cast<const F16*>(router.weights)[index]);
  }
  return 0.0f;
}

}  // namespace

void Routing::assign(const RouterOutput& router, int64_t first_token, int64_t token_count, int64_t experts) {
  offsets_.assign(static_cast<size_t>(experts) + 1, 0);
  const auto for_each_pair = [&](auto&& visit) {
    for (int64_t token = 0; token < token_count; ++token)
      for (int64_t slot = 0; slot < router.topk; ++slot) {
        const int64_t id = id_at(router, first_token + token, slot);
        if (id >= 0 && id < experts) visit(token, slot, static_cast<size_t>(id));
      }
  };
  for_each_pair([&](int64_t, int64_t, size_t id) { ++offsets_[id + 1]; });

  active.clear();
  for (size_t id = 0; id < static_cast<size_t>(experts); ++id) {
    if (offsets_[id + 1] > 0)
      active.push_back({static_cast<int32_t>(id), offsets_[id], offsets_[id] + offsets_[id + 1]});
    offsets_[id + 1] += offsets_[id];
  }
  tokens.resize(static_cast<size_t>(offsets_.back()));
  weights.resize(tokens.size());
  for_each_pair([&](int64_t token, int64_t slot, size_t id) {
    const auto row = static_cast<size_t>(offsets_[id]++);
    tokens[row] = static_cast<int32_t>(token);
    weights[row] = weight_at(router, first_token + token, slot);
  });
}

}  // namespace trimoe::cpu
