// How long bytes take on the channel of a DIMM.
#pragma once

#include <cmath>

#include "ndp/timing/closed_form.h"

namespace trimoe::ndp {

// Both sub-channels, whole bursts.
inline double channel_ns(const DramSpec& spec, int64_t bytes) {
  const double bursts = std::ceil(static_cast<double>(bytes) / kSubChannels / spec.geometry.burst_bytes);
  return bursts * spec.timing.nBL * spec.clock_ns;
}

}  // namespace trimoe::ndp
