// Four columns of a column tile at once, for the scale searches of the 4-bit packing.
#pragma once

#include <bit>
#include <cstdint>

#include "packed/layout.h"

namespace trimoe {
namespace {

// [k][column] of fp32: the values of one group of k.
using GroupValues = const float (*)[kTileCols];

inline constexpr float kTiny = 1e-35f;  // below it an inverse may overflow: such a group counts as zero

// The compiler makes the baseline's vector instructions of these. Loops over single floats it leaves
// scalar, as their clamps become branches.
using Lanes = float __attribute__((vector_size(16)));
using IntLanes = int32_t __attribute__((vector_size(16)));
inline constexpr int64_t kLanes = 4;

inline Lanes load(const float* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

inline void store(float* to, Lanes lanes) { __builtin_memcpy(to, &lanes, sizeof lanes); }

inline Lanes min(Lanes a, Lanes b) { return a < b ? a : b; }
inline Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }
inline Lanes all(float value) { return Lanes{} + value; }
inline Lanes magnitude(Lanes value) { return max(value, -value); }

// The value of largest magnitude, with its sign.
inline Lanes extreme_of(GroupValues values, int64_t group, int64_t column) {
  Lanes low{}, high{};
  for (int64_t k = 0; k < group; ++k) {
    low = min(low, load(values[k] + column));
    high = max(high, load(values[k] + column));
  }
  return -low > high ? low : high;
}

}  // namespace
}  // namespace trimoe
