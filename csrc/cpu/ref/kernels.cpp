// The reference: plain loops to be believed on sight. Runs on any machine, and every other entry of
// the kernel table is tested against it.
#include "cpu/ref/kernels.h"

#include <algorithm>
#include <cmath>

#include "common/convert.h"
#include "cpu/ref/column.h"

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

// Rows of A and h in fp32; rounded to bf16 where other entries store bf16.
template <bool kRounded>
float stored(float value) {
  return kRounded ? round_to_bf16(value) : value;
}

float source_element(const LoadArgs& args, int64_t row, int64_t k) {
  const RowSource& source = args.source;
  if (k >= source.cols) return 0.0f;
  return element(source.data, source.dtype,
                 (args.first_row + row) * source.row_stride + k * source.col_stride);
}

template <bool kRounded>
void load_rows(const LoadArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    auto* a = reinterpret_cast<float*>(args.a + row * args.a_stride);
    for (int64_t k = 0; k < args.shape.k_padded; ++k) a[k] = stored<kRounded>(source_element(args, row, k));
  }
}

// code = x * 127 / max |x|, rounded to nearest, ties to even. A NaN or an infinity in a row makes its
// scale and so all its results NaN; a row below 1e-35 counts as zero.
void quantize_rows(const LoadArgs& args) {
  const RowShape& shape = args.shape;
  for (int64_t row = 0; row < args.rows; ++row) {
    float largest = 0.0f;
    for (int64_t k = 0; k < shape.k_padded; ++k) {
      const float x = std::abs(source_element(args, row, k));
      if (x > largest || std::isnan(x)) largest = x;
      if (std::isnan(largest)) break;
    }
    const float inverse = largest < 1e-35f ? 0.0f : 127.0f / largest;
    auto* codes = reinterpret_cast<int16_t*>(args.a + row * args.a_stride);
    auto* scale = reinterpret_cast<float*>(codes + shape.k_padded);
    auto* offsets = reinterpret_cast<int32_t*>(scale + 1);
    *scale = largest / 127.0f;
    std::fill_n(offsets, shape.groups, 0);
    for (int64_t k = 0; k < shape.k_padded; ++k) {
      const float x = source_element(args, row, k) * inverse;
      codes[k] = static_cast<int16_t>(std::isfinite(x) ? std::nearbyint(x) : 0.0f);
      offsets[k / shape.group_k] -= shape.zero * codes[k];
    }
  }
}

// Sum over groups of k of what sum_of(column, row of A, group, first k, end k) yields.
template <Format kFormat, typename SumOf>
void gemm_by_groups(const GemmArgs& args, const SumOf& sum_of) {
  const int64_t k_padded = args.k_tiles * k_per_tile(kFormat);
  const int64_t group_k = args.group_lines * k_per_line(kFormat);
  for (int row = 0; row < args.rows; ++row)
    for (int64_t n = 0; n < args.panels * kPanelCols; ++n) {
      const Column<kFormat> column(args, n);
      float sum = 0.0f;
      for (int64_t group = 0, k = 0; k < k_padded; ++group, k += group_k)
        sum += sum_of(column, args.a + row * args.a_stride, group, k, std::min(k + group_k, k_padded));
      args.c[row * args.c_stride + n] = sum;
    }
}

template <Format kFormat>
void gemm(const GemmArgs& args) {
  gemm_by_groups<kFormat>(
      args, [](const auto& column, const std::byte* row, int64_t group, int64_t k, int64_t end) {
        const auto* a = reinterpret_cast<const float*>(row);
        float sum = 0.0f;
        for (; k < end; ++k) sum += a[k] * column.value(k);
        return sum * column.scale(group);
      });
}

template <Format kFormat>
void quantized_gemm(const GemmArgs& args) {
  const int64_t k_padded = args.k_tiles * k_per_tile(kFormat);
  gemm_by_groups<kFormat>(
      args, [k_padded](const auto& column, const std::byte* row, int64_t group, int64_t k, int64_t end) {
        const auto* a = reinterpret_cast<const int16_t*>(row);
        const auto* row_scale = reinterpret_cast<const float*>(a + k_padded);
        int32_t sum = reinterpret_cast<const int32_t*>(row_scale + 1)[group];
        for (; k < end; ++k) sum += a[k] * column.code(k);
        return static_cast<float>(sum) * column.scale(group) * *row_scale;
      });
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

template <bool kRounded>
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
      static_cast<float*>(args.h)[row * args.h_stride + i] = stored<kRounded>(h);
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

template <bool kRounded>
constexpr Kernel table_row(void (*gemm)(const GemmArgs&)) {
  return {RowType::kF32, DType::kF32,        kMaxRows,   load_rows<kRounded>,
          gemm,          activate<kRounded>, accumulate, store};
}

constexpr Kernel quantized_row(void (*gemm)(const GemmArgs&)) {
  return {RowType::kInt16, DType::kF32, kMaxRows, quantize_rows, gemm, activate<true>, accumulate, store};
}

}  // namespace

constinit const Kernel f32 = table_row<false>(gemm<Format::kF32>);
constinit const Kernel bf16 = table_row<true>(gemm<Format::kBf16>);
constinit const Kernel int8 = quantized_row(quantized_gemm<Format::kInt8>);
constinit const Kernel int4 = quantized_row(quantized_gemm<Format::kInt4>);
constinit const Kernel int4_a16 = table_row<true>(gemm<Format::kInt4>);
constinit const Kernel fp8 = table_row<true>(gemm<Format::kFp8>);
constinit const Kernel mxfp4 = table_row<true>(gemm<Format::kMxfp4>);

}  // namespace trimoe::cpu::ref
