// Bytes on the channel of a DIMM: what they take (closed_form.h) and what they add up to.
#pragma once

#include "ndp/dimm/state.h"
#include "ndp/timing/closed_form.h"

namespace trimoe::ndp {

// Bytes that have crossed the channel, either way.
inline void count_channel(DimmState& dimm, int64_t bytes) {
  dimm.counters.channel_bytes += bytes;
  dimm.counters.channel_nj += static_cast<double>(bytes) * 8 * kChannelPjPerBit * 1e-3;
}

}  // namespace trimoe::ndp
