#include "ndp/timing/relayout.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "ndp/timing/closed_form.h"
#include "ndp/timing/stream.h"

namespace trimoe::ndp {
namespace {

// Bytes read at full rate from so many ranks at once, each on its own two sub-channels.
double read_ns(const DramSpec& spec, int ranks, double bytes) {
  const auto bursts =
      static_cast<int64_t>(std::ceil(bytes / 3 / ranks / kSubChannels / spec.geometry.burst_bytes));
  const auto pass = PassReader(spec, bursts).next();
  const Run& last = pass->down.back();
  return static_cast<double>(last.first_end + (last.bursts - 1) * spec.timing.nBL) * spec.clock_ns;
}

}  // namespace

RelayoutTime relayout_time(const DramSpec& spec, const CoreConfig& core, const RelayoutCase& one) {
  // Of the core only the ranks and the link are used.
  CoreConfig wide = core;
  wide.buffer_bytes = int64_t{1} << 40;
  check_case(spec, wide, {one.hidden, one.inter, 1, one.weight_bytes_each});
  check(one.dimms >= 2, "two DIMMs or more", one.dimms, "16");
  const double bytes = 3.0 * static_cast<double>(one.hidden * one.inter) * one.weight_bytes_each;
  const double moved = one.migrate ? bytes : bytes - bytes / one.dimms;
  RelayoutTime time{};
  time.weight_bytes = static_cast<int64_t>(bytes);
  time.link_bytes = static_cast<int64_t>(moved);
  time.link_closed_form_ns = moved / std::min(core.link_gbps, stream_gbps(spec, core.ranks));
  time.link_ns = first_link_ns(spec, core.link_gbps) +
                 std::max(read_ns(spec, core.ranks, moved), moved / core.link_gbps);
  time.host_closed_form_ns = bytes / stream_gbps(spec, 1);
  time.host_ns = read_ns(spec, 1, bytes);
  time.link_nj = moved * 8 * kLinkPjPerBit * 1e-3;
  time.channel_nj = 2 * bytes * 8 * kChannelPjPerBit * 1e-3;
  return time;
}

}  // namespace trimoe::ndp
