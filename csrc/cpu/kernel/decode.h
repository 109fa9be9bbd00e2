// The parts of a packed line and the scales of a panel, for any vector instruction set I; see layout.h.
//
// Included by code that is compiled once per instruction set, hence the unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "packed/layout.h"

namespace trimoe {
namespace {

// The scales of one vector of columns, the part-th of a column tile; fp8 has one for a whole column tile.
template <class I, Format kFormat>
typename I::Vec load_scale(const std::byte* scales, int64_t group, int64_t tile, int64_t part = 0) {
  const std::byte* from = scales + group * group_scale_bytes(kFormat);
  const int64_t column = tile * kTileCols + part * I::kLanes;
  if constexpr (kFormat == Format::kFp8) return I::set(reinterpret_cast<const float*>(from)[tile]);
  if constexpr (kFormat == Format::kInt8) return I::load(reinterpret_cast<const float*>(from) + column);
  if constexpr (kFormat == Format::kInt4) return I::load_bf16(from + column * 2);
  if constexpr (kFormat == Format::kMxfp4) return I::load_e8m0(from + column);
}

// The sub-th pair of k of an fp8 line, each code in the upper byte of a word.
template <class I, int kSub>
typename I::Int upper_bytes(typename I::Int codes) {
  if constexpr (kSub == 0) return I::template shift_left16<8>(codes);
  return I::and_int(codes, I::set_int(static_cast<int>(0xff00ff00u)));
}

// The sub-th four k of a line of 8-bit or 4-bit codes, one in each byte.
template <class I, Format kFormat, int kSub>
typename I::Int code_bytes(typename I::Int codes) {
  if constexpr (kFormat == Format::kInt8) return codes;
  return I::and_int(I::template shift_right32<4 * kSub>(codes), I::set_int(0x0f0f0f0f));
}

}  // namespace
}  // namespace trimoe
