// The way of a descriptor from the host to the core, in clocks. Behind the channel it is an assumption.
#pragma once

#include "ndp/dram/spec.h"

namespace trimoe::ndp {

inline constexpr int64_t kDriverClocks = 2;  // the registering driver
inline constexpr int64_t kBufferClocks = 8;  // the data buffers
inline constexpr int64_t kDecodeClocks = 7;  // the NDP side

constexpr int64_t command_clocks(const DramTiming& timing) {
  return timing.nCWL + timing.nBL + kDriverClocks + kBufferClocks + kDecodeClocks;
}

}  // namespace trimoe::ndp
