#include "cpu/ffn/route.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "common/convert.h"
#include "common/error.h"

namespace trimoe::cpu {
namespace {

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

// As it is at this moment.
int64_t id_at(const RouterOutput& router, int64_t token, int64_t slot) {
  const int64_t index = token * router.ids_row_stride + slot * router.ids_col_stride;
  // Atomic, so that the compiler does not read twice what another thread may write to.
  return router.ids_are_int64
             ? __atomic_load_n(static_cast<const int64_t*>(router.ids) + index, __ATOMIC_RELAXED)
             : __atomic_load_n(static_cast<const int32_t*>(router.ids) + index, __ATOMIC_RELAXED);
}

}  // namespace

void check_pairs(int64_t tokens, int64_t topk) {
  check(topk <= kMaxTopk, "at most 65536 experts per token", topk, "a smaller K");
  check(
      tokens <= kMaxPairs / std::max<int64_t>(1, topk),
      "fewer than 2^31 pairs of a token and an expert in a call",
      [&] { return std::to_string(tokens) + " tokens of " + std::to_string(topk) + " experts"; },
      "fewer tokens in a call");
}

void Routing::assign(const RouterOutput& router, int64_t token_count, int64_t experts) {
  offsets_.assign(static_cast<size_t>(experts) + 1, 0);
  ids_.clear();
  for (int64_t token = 0; token < token_count; ++token)
    for (int64_t slot = 0; slot < router.topk; ++slot) {
      const int64_t id = id_at(router, token, slot);
      const bool is_expert = id >= 0 && id < experts;
      ids_.push_back(is_expert ? static_cast<int32_t>(id) : -1);
      if (is_expert) ++offsets_[static_cast<size_t>(id) + 1];
    }

  active.clear();
  for (size_t id = 0; id < static_cast<size_t>(experts); ++id) {
    if (offsets_[id + 1] > 0)
      active.push_back({static_cast<int32_t>(id), offsets_[id], offsets_[id] + offsets_[id + 1]});
    offsets_[id + 1] += offsets_[id];
  }
  tokens.resize(static_cast<size_t>(offsets_.back()));
  weights.resize(tokens.size());
  const int32_t* id = ids_.data();
  for (int64_t token = 0; token < token_count; ++token)
    for (int64_t slot = 0; slot < router.topk; ++slot, ++id) {
      if (*id < 0) continue;
      const auto row = static_cast<size_t>(offsets_[static_cast<size_t>(*id)]++);
      tokens[row] = static_cast<int32_t>(token);
      weights[row] = weight_at(router, token, slot);
    }
}

}  // namespace trimoe::cpu
