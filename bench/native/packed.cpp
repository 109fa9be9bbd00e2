#include "packed.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "packed/pack/pack.h"

namespace trimoe::bench {
namespace {

constexpr int64_t kPackedPanels = 8;  // enough that no two panels of one gemm call are the same

SourceView matrix_view(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {{values.data(), SourceType::kF32, rows, cols, cols, 1}, {}, 1, 1};
}

LayerShape shape_of(int64_t experts, int64_t hidden, int64_t inter, const Variant& variant, bool gated) {
  LayerShape shape;
  shape.experts = experts;
  shape.hidden = hidden;
  shape.inter = inter;
  shape.weights = variant.weights;
  shape.int8_activations = variant.int8_rows;
  shape.activation.gated = gated;
  shape.validate();
  return shape;
}

}  // namespace

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = {{"fp32", Format::kF32, false},
                                           {"bf16", Format::kBf16, false},
                                           {"int8", Format::kInt8, true},
                                           {"int4", Format::kInt4, true},
                                           {"int4_g32", {Format::kInt4, 32}, true},
                                           {"int4_a16", Format::kInt4, false},
                                           {"fp8", Format::kFp8, false},
                                           {"mxfp4", Format::kMxfp4, false}};
  return all;
}

std::vector<float> random_values(int64_t count) {
  std::minstd_rand generator(1);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(generator);
  return values;
}

std::unique_ptr<Layer> random_layer(int64_t experts, int64_t hidden, int64_t inter, const Variant& variant) {
  const auto shape = shape_of(experts, hidden, inter, variant, true);
  auto layer = std::make_unique<Layer>(shape);
  const std::vector<float> values = random_values(hidden * inter);
  const SourceView wide = matrix_view(values, inter, hidden), tall = matrix_view(values, hidden, inter);
  pack_expert(shape, {wide, wide, tall, {}, {}, {}}, layer->mutable_expert(0));
  for (int64_t expert = 1; expert < experts; ++expert)
    std::memcpy(layer->mutable_expert(expert), layer->expert(0), static_cast<size_t>(shape.expert_bytes()));
  return layer;
}

PackedGemm::PackedGemm(const Variant& variant, const Kernel& kernel, int64_t rows, int64_t k, int64_t panels)
    : matrix(variant.weights, panels, k), weights(static_cast<size_t>(matrix.bytes())) {
  const int64_t packed_panels = std::min(panels, kPackedPanels);
  const auto shape = shape_of(1, k, packed_panels * kPanelCols, variant, false);
  std::vector<std::byte> expert(static_cast<size_t>(shape.expert_bytes()));
  const std::vector<float> values = random_values(k * shape.inter);
  pack_expert(shape,
              {{}, matrix_view(values, shape.inter, k), matrix_view(values, k, shape.inter), {}, {}, {}},
              expert.data());
  for (int64_t panel = 0; panel < panels; ++panel)
    std::memcpy(weights.data() + panel * matrix.panel_bytes(),
                expert.data() + panel % packed_panels * matrix.panel_bytes(),
                static_cast<size_t>(matrix.panel_bytes()));

  // Apart by an odd number of lines, so that equal k of many rows do not share a cache set.
  a_stride = round_up(row_bytes(kernel.a, shape.gate_up_rows()), 2 * kLineBytes) + kLineBytes;
  a.reserve(static_cast<size_t>((rows + kRowSlack) * a_stride));
  const std::vector<float> hidden = random_values(rows * k);
  kernel.load_rows(
      {{hidden.data(), DType::kF32, k, 1, k}, 0, rows, shape.gate_up_rows(), a.data(), a_stride});
}

void OpenMpThreads::run(int workers, void (*body)(void*, int), void* context) const {
#pragma omp parallel for num_threads(workers) schedule(static, 1)
  for (int worker = 0; worker < workers; ++worker) body(context, worker);
}

}  // namespace trimoe::bench
