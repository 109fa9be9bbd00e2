// Reads packed weights back, one element at a time, by the description of the layout.
#pragma once

#include <cstring>

#include "packed/codes.h"
#include "packed/layout.h"

namespace trimoe::test {

template <typename T>
T at(const std::byte* from, int64_t index) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

inline double code_value(Format format, const std::byte* panel, int64_t column, int64_t k) {
  const CodePlace place = code_place(format, column, k);
  const std::byte* from = panel + place.byte;
  const auto byte = at<uint8_t>(from, 0);
  const auto nibble = static_cast<uint8_t>(byte >> place.shift & 15);
  switch (format) {
    case Format::kF32:
      return at<float>(from, 0);
    case Format::kBf16:
      return to_f32(at<Bf16>(from, 0));
    case Format::kInt8:
      return byte - 128;
    case Format::kInt4:
      return nibble - 8;
    case Format::kFp8:
      return to_f32(E4m3{byte});
    case Format::kMxfp4:
      return to_f32(E2m1{nibble});
  }
  return 0;
}

// The weight that output column `column` of the panel has for input k.
inline double weight_at(const WeightFormat& weights, const PackedMatrix& matrix, const std::byte* panel,
                        int64_t column, int64_t k) {
  const double code = code_value(weights.format, panel, column, k);
  const int64_t group = weights.group ? k / weights.group : 0;
  const std::byte* scales = panel + matrix.scales_offset() + group * group_scale_bytes(weights.format);
  if (weights.format == Format::kFp8) return code * at<float>(scales, column / kTileCols);
  switch (facts(weights.format).scale) {
    case ScaleType::kNone:
      return code;
    case ScaleType::kF32:
      return code * at<float>(scales, column);
    case ScaleType::kBf16:
      return code * to_f32(at<Bf16>(scales, column));
    case ScaleType::kE8m0:
      return code * to_f32(at<E8m0>(scales, column));
  }
  return 0;
}

}  // namespace trimoe::test
