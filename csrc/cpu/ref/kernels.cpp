// The reference: plain loops to be believed on sight. Runs on any machine, and every other entry of
// the kernel table is tested against it.
#include "cpu/ref/kernels.h"

#include <algorithm>
#include <cmath>

#include "common/convert.h"
#include "common/layout.h"

namespace trimoe::cpu::ref {
namespace {

float element(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[index];
    case DType::kBf16:
      return to_f32(static_cast<const Bf16*>(data)[index]);
    case DType::kF16:
      return to_f32(static_cast<const F16*>(data)[index]);
  }
  return 0.0f;
}

template <DType kWeights>
float quantize(float value) {
  return kWeights == DType::kBf16 ? round_to_bf16(value) : value;
}

template <DType kWeights>
void load_rows(const RowSource& source, const int32_t* indices, int rows, void* a, int64_t a_stride,
               int64_t k_padded) {
  for (int row = 0; row < rows; ++row)
    for (int64_t k = 0; k < k_padded; ++k) {
      const int64_t index = indices[row] * source.row_stride + k * source.col_stride;
      static_cast<float*>(a)[row * a_stride + k] =
          k < source.cols ? quantize<kWeights>(element(source.data, source.dtype, index)) : 0.0f;
    }
}

template <DType kWeights>
void gemm(const GemmArgs& args) {
  const int64_t k_padded = args.k_tiles * kTileSteps * k_per_step(kWeights);
  for (int row = 0; row < args.rows; ++row)
    for (int64_t n = 0; n < args.panels * kPanelCols; ++n) {
      const std::byte* panel = args.w + (n / kPanelCols) * args.panel_bytes;
      float sum = 0.0f;
      for (int64_t k = 0; k < k_padded; ++k)
        sum += static_cast<const float*>(args.a)[row * args.a_stride + k] *
               element(panel + element_offset(kWeights, n % kPanelCols, k), kWeights, 0);
      args.c[row * args.c_stride + n] = sum;
    }
}

float act(Activation kind, float x) {
  switch (kind) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * std::sqrt(0.5f)));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(std::sqrt(2.0f / 3.14159265f) * (x + 0.044715f * x * x * x)));
    case Activation::kRelu2:
      return std::max(x, 0.0f) * std::max(x, 0.0f);
    case Activation::kSwigluOai:
      break;  // not a function of one value
  }
  return 0.0f;
}

float gated_act(const ActivationSpec& spec, float gate, float up) {
  if (spec.kind != Activation::kSwigluOai) return act(spec.kind, gate) * up;
  gate = std::min(gate, spec.limit);
  up = std::clamp(up, -spec.limit, spec.limit);
  return (up + 1.0f) * gate / (1.0f + std::exp(-spec.alpha * gate));
}

template <DType kWeights>
void activate(const ActivateArgs& args) {
  const int64_t width = args.spec.gated ? kTileCols : kPanelCols;
  for (int row = 0; row < args.rows; ++row)
    for (int64_t i = 0; i < args.panels * width; ++i) {
      const int64_t column = i / width * kPanelCols + i % width;
      auto value = [&](int64_t n) {
        return args.c[row * args.c_stride + n] + (args.bias ? args.bias[n] : 0.0f);
      };
      const float h = args.spec.gated ? gated_act(args.spec, value(column), value(column + kTileCols))
                                      : act(args.spec.kind, value(column));
      static_cast<float*>(args.h)[row * args.h_stride + i] = quantize<kWeights>(h);
    }
}

void accumulate(const AccumulateArgs& args) {
  for (int row = 0; row < args.rows; ++row)
    for (int64_t i = 0; i < args.cols; ++i)
      args.acc[args.targets[row] * args.acc_stride + i] +=
          args.weights[row] * (args.c[row * args.c_stride + i] + (args.bias ? args.bias[i] : 0.0f));
}

void store(const StoreArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    for (int64_t i = 0; i < args.cols; ++i) {
      const float value = args.acc[row * args.acc_stride + i];
      const int64_t index = row * args.out_stride + i;
      switch (args.dtype) {
        case DType::kF32:
          static_cast<float*>(args.out)[index] = value;
          break;
        case DType::kBf16:
          static_cast<Bf16*>(args.out)[index] = from_f32<Bf16>(value);
          break;
        case DType::kF16:
          static_cast<F16*>(args.out)[index] = from_f32<F16>(value);
          break;
      }
    }
}

template <DType kWeights>
constexpr Kernel table_row() {
  return {kWeights,       DType::kF32,        kMaxRows,   load_rows<kWeights>,
          gemm<kWeights>, activate<kWeights>, accumulate, store};
}

}  // namespace

constinit const Kernel f32 = table_row<DType::kF32>();
constinit const Kernel bf16 = table_row<DType::kBf16>();

}  // namespace trimoe::cpu::ref
