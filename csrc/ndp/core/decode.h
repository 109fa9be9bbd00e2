// Packed lines as numbers, without their scales; and those scales.
#pragma once

#include <cstring>

#include "common/convert.h"
#include "ndp/core/core.h"

namespace trimoe::ndp {
namespace {

// Memory would idle while a block is multiplied, and the processor while the next one is awaited.
constexpr int64_t kFetchAheadBytes = 4096;

template <typename T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The number whose code starts at bit `shift` of a line's dword.
template <Number kNumber>
float number_at(uint32_t dword, int shift) {
  constexpr FormatFacts kFacts = facts(packed_format(kNumber));
  const uint32_t code = dword >> shift;
  if constexpr (kNumber == Number::kBf16) return bits_to_f32(code << 16);
  if constexpr (kNumber == Number::kF16) return to_f32(F16{static_cast<uint16_t>(code)});
  return static_cast<float>(static_cast<int32_t>(code & ((1u << kFacts.bits) - 1)) - kFacts.zero);
}

// w[k - k_begin][column] of one panel. k_begin is the first k of a line; the last line is decoded whole.
template <Number kNumber>
void decode(const std::byte* panel, int64_t k_begin, int64_t k_end, float (*w)[kPanelCols]) {
  constexpr Format kFormat = packed_format(kNumber);
  for (int64_t k = k_begin; k < k_end; k += k_per_line(kFormat)) {
    const std::byte* line = panel + code_place(kFormat, 0, k).byte;
    for (int64_t tile = 0; tile < kPanelCols; tile += kTileCols, line += kTileBytes) {
      __builtin_prefetch(line + kFetchAheadBytes);
      for (int64_t in_line = 0; in_line < k_per_line(kFormat); ++in_line) {
        const CodePlace place = code_place(kFormat, 0, in_line);
        const int shift = static_cast<int>(place.byte) * 8 + place.shift;
        float* to = w[k - k_begin + in_line] + tile;
        for (int64_t column = 0; column < kTileCols; ++column)
          to[column] = number_at<kNumber>(read<uint32_t>(line + column * 4), shift);
      }
    }
  }
}

// The scale of one column for a group whose scales start at `group`.
template <Number kNumber>
float scale_at(const std::byte* group, int64_t column) {
  if constexpr (kNumber == Number::kInt8) return read<float>(group + column * 4);
  if constexpr (kNumber == Number::kInt4) return to_f32(read<Bf16>(group + column * 2));
  return 1.0f;
}

}  // namespace
}  // namespace trimoe::ndp
