// The domain of an expert in a plan, and its layout in memory, as numbers: declared here, and nowhere else.
// Python has them from trimoe._assign.
#pragma once

#include <cstdint>

namespace trimoe {

// Each DIMM that has a slice of every matrix of the expert computes its part.
inline constexpr int32_t kSplitDomain = -2;
// Nobody chose the expert: nothing to do.
inline constexpr int32_t kIdleDomain = -1;
inline constexpr int32_t kCpuDomain = 0;
inline constexpr int32_t kGpuDomain = 1;
// DIMM d is kFirstDimmDomain + d.
inline constexpr int32_t kFirstDimmDomain = 2;

// A layout is the DIMM (or other place) that holds all of an expert; or this, each has a part.
inline constexpr int16_t kStripedLayout = -1;

}  // namespace trimoe
