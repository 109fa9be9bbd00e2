// Bandwidths of a DIMM that follow from its speed grade.
#pragma once

#include <cmath>

#include "ndp/expert.h"

namespace trimoe::ndp {

// A descriptor on its way to the core: the write, then registering driver, data buffers and decoding.
inline double command_ns(const DramSpec& spec) {
  return (spec.timing.nCWL + spec.timing.nBL + 2 + 8 + 7) * spec.clock_ns;
}

// Both sub-channels, whole bursts.
inline double channel_ns(const DramSpec& spec, int64_t bytes) {
  const double bursts = std::ceil(static_cast<double>(bytes) / kSubChannels / spec.geometry.burst_bytes);
  return bursts * spec.timing.nBL * spec.clock_ns;
}

// A stream of reads on one sub-channel of one rank; refreshes close its rows and open them again.
inline double stream_gbps(const DramSpec& spec) {
  const DramTiming& t = spec.timing;
  return spec.peak_gbps() * (1.0 - static_cast<double>(t.nRTP + t.nRP + t.nRFC1 + t.nRCD) / t.nREFI);
}

// All ranks and sub-channels, seen from the core.
inline double internal_gbps(const DramSpec& spec, int ranks) {
  return stream_gbps(spec) * kSubChannels * ranks;
}

}  // namespace trimoe::ndp
