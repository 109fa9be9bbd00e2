// Rows of A in 8 bits: code = round(x * 127 / max |x|), ties to even. See RowType for the layout.
#pragma once

#include "common/convert.h"
#include "cpu/kernel/kernel.h"

namespace trimoe::cpu {
namespace {

// As bits, so that a NaN is the largest: the scale, and with it the row's results, become NaN.
template <typename Source>
float absolute_max(const Source* __restrict x, int64_t stride, int64_t count) {
  uint32_t largest = 0;
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = f32_to_bits(to_f32(x[i])) & 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = f32_to_bits(to_f32(x[i * stride])) & 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
  }
  return bits_to_f32(largest);
}

inline int32_t round_to_int(float value) {  // |value| < 2^22
  return static_cast<int32_t>(f32_to_bits(value + 12582912.0f) - 0x4b400000u);
}

template <typename Code, typename Source>
void quantize_row(const Source* __restrict x, int64_t stride, int64_t cols, const RowShape& shape,
                  std::byte* __restrict row) {
  auto* __restrict codes = reinterpret_cast<Code*>(row);
  const float largest = absolute_max(x, stride, cols);
  // A subnormal maximum would have an infinite inverse; such a row counts as zero.
  const float inverse = largest < 1e-35f ? 0.0f : 127.0f / largest;
  if (stride == 1)
    for (int64_t k = 0; k < cols; ++k) codes[k] = static_cast<Code>(round_to_int(to_f32(x[k]) * inverse));
  else
    for (int64_t k = 0; k < cols; ++k)
      codes[k] = static_cast<Code>(round_to_int(to_f32(x[k * stride]) * inverse));
  for (int64_t k = cols; k < shape.k_padded; ++k) codes[k] = 0;

  auto* scale = reinterpret_cast<float*>(codes + shape.k_padded);
  auto* __restrict offsets = reinterpret_cast<int32_t*>(scale + 1);
  *scale = largest / 127.0f;
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t first = group * shape.group_k;
    const int64_t last = first + shape.group_k < shape.k_padded ? first + shape.group_k : shape.k_padded;
    int32_t sum = 0;
    for (int64_t k = first; k < last; ++k) sum += codes[k];
    offsets[group] = -shape.zero * sum;
  }
}

// The middle two of every four bytes change places.
inline void swap_quads(std::byte* row, int64_t bytes) {
  auto* __restrict quads = reinterpret_cast<uint32_t*>(row);
  for (int64_t i = 0; i < bytes / 4; ++i) {
    const uint32_t quad = quads[i];
    quads[i] = (quad & 0xff0000ffu) | (quad & 0x0000ff00u) << 8 | (quad & 0x00ff0000u) >> 8;
  }
}

template <RowType kType, typename Source>
void quantize_rows_as(const LoadArgs& args) {
  const auto* data = static_cast<const Source*>(args.source.data) + args.first_row * args.source.row_stride;
  for (int64_t row = 0; row < args.rows; ++row, data += args.source.row_stride) {
    std::byte* a = args.a + row * args.a_stride;
    if constexpr (kType == RowType::kInt8) {
      quantize_row<int8_t>(data, args.source.col_stride, args.source.cols, args.shape, a);
      swap_quads(a, args.shape.k_padded);
    } else {
      quantize_row<int16_t>(data, args.source.col_stride, args.source.cols, args.shape, a);
    }
  }
}

template <RowType kType>
void quantize_rows(const LoadArgs& args) {
  switch (args.source.dtype) {
    case DType::kF32:
      return quantize_rows_as<kType, float>(args);
    case DType::kBf16:
      return quantize_rows_as<kType, Bf16>(args);
    case DType::kF16:
      return quantize_rows_as<kType, F16>(args);
  }
}

}  // namespace
}  // namespace trimoe::cpu
