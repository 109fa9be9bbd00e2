// Packing: brings weights of any source layout into the packed layout, once.
#pragma once

#include <array>
#include <string_view>

#include "packed/layer.h"

namespace trimoe {

// Element types of sources. e8m0 is for scales only.
enum class SourceType : int32_t { kF32 = 0, kBf16, kF16, kFp8, kMxfp4, kE8m0 };
inline constexpr std::array<std::string_view, 6> kSourceTypeNames = {"fp32", "bf16",  "fp16",
                                                                     "fp8",  "mxfp4", "e8m0"};

constexpr int64_t bits_of(SourceType type) {
  return type == SourceType::kF32 ? 32 : type == SourceType::kMxfp4 ? 4 : type >= SourceType::kFp8 ? 8 : 16;
}

// A matrix [rows, cols] or vector [rows, 1] in memory, any strides (in elements), any alignment.
// mxfp4 has two elements in a byte, the low nibble first: its columns are contiguous and its rows
// start at whole bytes.
struct SourceArray {
  const void* data = nullptr;
  SourceType type = SourceType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 0;
};

// value(r, c) = array(r, c) * scale(r / block_rows, c / block_cols), or without the factor.
struct SourceView : SourceArray {
  SourceArray scale;
  int64_t block_rows = 1;
  int64_t block_cols = 1;
};

// One expert as the model defines it: gate and up [I, H], down [H, I], biases [I], [I], [H].
// Gate is absent without a gate; biases are absent unless the shape has them.
struct ExpertSource {
  SourceView gate, up, down;
  SourceView gate_bias, up_bias, down_bias;
};

// Writes one expert's block. Codes and scales of a source that is quantised as the layer is are kept bit
// for bit; everything else is converted by way of fp32. Throws Error for a part that is missing or of
// another shape, and for a value that the layer's format cannot hold. Thread-safe for different experts of
// one layer.
void pack_expert(const LayerShape& shape, const ExpertSource& source, std::byte* expert);

}  // namespace trimoe
