// Everything of a kernel but its gemm, as plain loops over 16 columns: compiled once per
// instruction set, in an unnamed namespace (see common/convert.h for why).
#pragma once

#include <type_traits>

#include "cpu/generic/activation_math.h"
#include "cpu/generic/quantize.h"
#include "cpu/kernel/kernel.h"
#include "packed/layout.h"

namespace trimoe::cpu {
namespace {

// How a kernel keeps floats: as they are, rounded to bf16 but stored as fp32 (for FMA), or as bf16.
struct F32Rows {
  using Stored = float;
  static constexpr RowType kType = RowType::kF32;
  static float store(float value) { return value; }
};
struct RoundedRows {
  using Stored = float;
  static constexpr RowType kType = RowType::kF32;
  static float store(float value) { return round_to_bf16(value); }
};
struct Bf16Rows {
  using Stored = Bf16;
  static constexpr RowType kType = RowType::kBf16;
  static Bf16 store(float value) { return from_f32<Bf16>(value); }
};

template <class Rows, typename Source>
void load_row(const Source* __restrict source, int64_t col_stride, int64_t cols,
              typename Rows::Stored* __restrict a, int64_t k_padded) {
  if constexpr (std::is_same_v<Source, typename Rows::Stored> && std::is_same_v<Rows, Bf16Rows>) {
    for (int64_t k = 0; k < cols; ++k) a[k] = source[k * col_stride];  // a NaN keeps its payload
  } else if (col_stride == 1) {
    for (int64_t k = 0; k < cols; ++k) a[k] = Rows::store(to_f32(source[k]));
  } else {
    for (int64_t k = 0; k < cols; ++k) a[k] = Rows::store(to_f32(source[k * col_stride]));
  }
  for (int64_t k = cols; k < k_padded; ++k) a[k] = {};
}

template <class Rows, typename Source>
void load_rows_as(const LoadArgs& args) {
  const auto* data = static_cast<const Source*>(args.source.data) + args.first_row * args.source.row_stride;
  for (int64_t row = 0; row < args.rows; ++row)
    load_row<Rows>(data + row * args.source.row_stride, args.source.col_stride, args.source.cols,
                   reinterpret_cast<typename Rows::Stored*>(args.a + row * args.a_stride),
                   args.shape.k_padded);
}

template <class Rows>
void load_rows(const LoadArgs& args) {
  switch (args.source.dtype) {
    case DType::kF32:
      return load_rows_as<Rows, float>(args);
    case DType::kBf16:
      return load_rows_as<Rows, Bf16>(args);
    case DType::kF16:
      return load_rows_as<Rows, F16>(args);
  }
}

// One panel of one row: 16 columns when gated (tile 0 gate, tile 1 up), else 32.
template <class Rows, Activation kKind>
inline void activate_panel(const float* __restrict c, const float* __restrict bias,
                           const ActivationSpec& spec, typename Rows::Stored* __restrict h) {
  float x[kPanelCols];
  for (int i = 0; i < kPanelCols; ++i) x[i] = bias ? c[i] + bias[i] : c[i];
  if constexpr (kKind == Activation::kSwigluOai) {
    for (int i = 0; i < kTileCols; ++i)
      h[i] = Rows::store(clamped_swiglu(x[i], x[i + kTileCols], spec.alpha, spec.limit));
  } else if (spec.gated) {
    for (int i = 0; i < kTileCols; ++i) h[i] = Rows::store(activate_one<kKind>(x[i]) * x[i + kTileCols]);
  } else {
    for (int i = 0; i < kPanelCols; ++i) h[i] = Rows::store(activate_one<kKind>(x[i]));
  }
}

template <class Rows, Activation kKind>
void activate_as(const ActivateArgs& args) {
  const int64_t width = args.spec.gated ? kTileCols : kPanelCols;
  for (int row = 0; row < args.rows; ++row)
    for (int panel = 0; panel < args.panels; ++panel)
      activate_panel<Rows, kKind>(
          args.c + row * args.c_stride + panel * kPanelCols,
          args.bias ? args.bias + panel * kPanelCols : nullptr, args.spec,
          static_cast<typename Rows::Stored*>(args.h) + row * args.h_stride + panel * width);
}

template <class Rows>
void activate(const ActivateArgs& args) {
  switch (args.spec.kind) {
    case Activation::kSilu:
      return activate_as<Rows, Activation::kSilu>(args);
    case Activation::kGelu:
      return activate_as<Rows, Activation::kGelu>(args);
    case Activation::kGeluTanh:
      return activate_as<Rows, Activation::kGeluTanh>(args);
    case Activation::kRelu2:
      return activate_as<Rows, Activation::kRelu2>(args);
    case Activation::kSwigluOai:
      return activate_as<Rows, Activation::kSwigluOai>(args);
  }
}

inline void accumulate(const AccumulateArgs& args) {
  for (int row = 0; row < args.rows; ++row) {
    const float* __restrict c = args.c + row * args.c_stride;
    float* __restrict acc = args.acc + args.targets[row] * args.acc_stride;
    const float weight = args.weights[row];
    if (args.bias)
      for (int64_t i = 0; i < args.cols; ++i) acc[i] += weight * (c[i] + args.bias[i]);
    else
      for (int64_t i = 0; i < args.cols; ++i) acc[i] += weight * c[i];
  }
}

template <typename Out>
void store_as(const StoreArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* __restrict acc = args.acc + row * args.acc_stride;
    Out* __restrict out = static_cast<Out*>(args.out) + row * args.out_stride;
    for (int64_t i = 0; i < args.cols; ++i) out[i] = from_f32<Out>(acc[i]);
  }
}

inline void store(const StoreArgs& args) {
  switch (args.dtype) {
    case DType::kF32:
      return store_as<float>(args);
    case DType::kBf16:
      return store_as<Bf16>(args);
    case DType::kF16:
      return store_as<F16>(args);
  }
}

// A table row of an instruction set: its gemm beside the shared loops.
template <class Rows>
constexpr Kernel float_kernel(int max_rows, void (*gemm)(const GemmArgs&)) {
  constexpr DType kH = std::is_same_v<typename Rows::Stored, Bf16> ? DType::kBf16 : DType::kF32;
  return {Rows::kType, kH, max_rows, load_rows<Rows>, gemm, activate<Rows>, accumulate, store};
}

template <RowType kType>
constexpr Kernel quantized_kernel(int max_rows, void (*gemm)(const GemmArgs&)) {
  return {kType, DType::kBf16, max_rows, quantize_rows<kType>, gemm, activate<Bf16Rows>, accumulate, store};
}

}  // namespace
}  // namespace trimoe::cpu
