// Everything of a kernel but its gemm, as plain loops over 16 columns: compiled once per
// instruction set, in an unnamed namespace (see common/convert.h for why).
#pragma once

#include <type_traits>

#include "common/kernel.h"
#include "common/layout.h"
#include "cpu/generic/activation_math.h"

namespace trimoe::cpu {
namespace {

// A value as the weight format sees it: rounded to bf16 when the weights are, whatever the storage.
template <DType kWeights, typename Stored, typename Source>
inline Stored quantize(Source value) {
  constexpr bool kRound = kWeights == DType::kBf16 && !std::is_same_v<Source, Bf16>;
  if constexpr (std::is_same_v<Source, Stored> && !kRound) return value;
  if constexpr (kRound) return from_f32<Stored>(round_to_bf16(to_f32(value)));
  return from_f32<Stored>(to_f32(value));
}

template <DType kWeights, typename Stored, typename Source>
void load_row(const Source* __restrict source, int64_t col_stride, int64_t cols, Stored* __restrict a,
              int64_t k_padded) {
  if (col_stride == 1)
    for (int64_t k = 0; k < cols; ++k) a[k] = quantize<kWeights, Stored>(source[k]);
  else
    for (int64_t k = 0; k < cols; ++k) a[k] = quantize<kWeights, Stored>(source[k * col_stride]);
  for (int64_t k = cols; k < k_padded; ++k) a[k] = Stored{};
}

template <DType kWeights, typename Stored, typename Source>
void load_rows_as(const RowSource& source, const int32_t* indices, int rows, Stored* a, int64_t a_stride,
                  int64_t k_padded) {
  const auto* data = static_cast<const Source*>(source.data);
  for (int row = 0; row < rows; ++row)
    load_row<kWeights>(data + indices[row] * source.row_stride, source.col_stride, source.cols,
                       a + row * a_stride, k_padded);
}

template <DType kWeights, typename Stored>
void load_rows(const RowSource& source, const int32_t* indices, int rows, void* a, int64_t a_stride,
               int64_t k_padded) {
  auto* to = static_cast<Stored*>(a);
  switch (source.dtype) {
    case DType::kF32:
      return load_rows_as<kWeights, Stored, float>(source, indices, rows, to, a_stride, k_padded);
    case DType::kBf16:
      return load_rows_as<kWeights, Stored, Bf16>(source, indices, rows, to, a_stride, k_padded);
    case DType::kF16:
      return load_rows_as<kWeights, Stored, F16>(source, indices, rows, to, a_stride, k_padded);
  }
}

// One panel of one row: 16 columns when gated (tile 0 gate, tile 1 up), else 32.
template <DType kWeights, typename Stored, Activation kKind>
inline void activate_panel(const float* __restrict c, const float* __restrict bias,
                           const ActivationSpec& spec, Stored* __restrict h) {
  float x[kPanelCols];
  for (int i = 0; i < kPanelCols; ++i) x[i] = bias ? c[i] + bias[i] : c[i];
  if constexpr (kKind == Activation::kSwigluOai) {
    for (int i = 0; i < kTileCols; ++i)
      h[i] = quantize<kWeights, Stored>(clamped_swiglu(x[i], x[i + kTileCols], spec.alpha, spec.limit));
  } else if (spec.gated) {
    for (int i = 0; i < kTileCols; ++i)
      h[i] = quantize<kWeights, Stored>(activate_one<kKind>(x[i]) * x[i + kTileCols]);
  } else {
    for (int i = 0; i < kPanelCols; ++i) h[i] = quantize<kWeights, Stored>(activate_one<kKind>(x[i]));
  }
}

template <DType kWeights, typename Stored, Activation kKind>
void activate_as(const ActivateArgs& args) {
  const int64_t width = args.spec.gated ? kTileCols : kPanelCols;
  for (int row = 0; row < args.rows; ++row)
    for (int panel = 0; panel < args.panels; ++panel)
      activate_panel<kWeights, Stored, kKind>(
          args.c + row * args.c_stride + panel * kPanelCols,
          args.bias ? args.bias + panel * kPanelCols : nullptr, args.spec,
          static_cast<Stored*>(args.h) + row * args.h_stride + panel * width);
}

template <DType kWeights, typename Stored>
void activate(const ActivateArgs& args) {
  switch (args.spec.kind) {
    case Activation::kSilu:
      return activate_as<kWeights, Stored, Activation::kSilu>(args);
    case Activation::kGelu:
      return activate_as<kWeights, Stored, Activation::kGelu>(args);
    case Activation::kGeluTanh:
      return activate_as<kWeights, Stored, Activation::kGeluTanh>(args);
    case Activation::kRelu2:
      return activate_as<kWeights, Stored, Activation::kRelu2>(args);
    case Activation::kSwigluOai:
      return activate_as<kWeights, Stored, Activation::kSwigluOai>(args);
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
template <DType kWeights, typename Stored>
constexpr Kernel make_kernel(DType activations, int max_rows, void (*gemm)(const GemmArgs&)) {
  return {kWeights,   activations, max_rows, load_rows<kWeights, Stored>, gemm, activate<kWeights, Stored>,
          accumulate, store};
}

}  // namespace
}  // namespace trimoe::cpu
