// Moving one expert's weights between DIMMs, in time: over the DIMM link, or by the host over the channels.
#pragma once

#include "ndp/timing/expert.h"

namespace trimoe::ndp {

struct RelayoutCase {
  int64_t hidden = 0, inter = 0;
  double weight_bytes_each = 2.0;
  int dimms = 16;        // that the expert is striped over, before or after
  bool migrate = false;  // all of it to one other DIMM instead
};

// By link: what the DIMM does not keep, (D - 1) / D of the weights or all, at the rate of the link or of its
// own ranks, and the first row before that. The channels stay free. By host: all weights through the channel
// of the one DIMM; the other channels' part lies within that time.
struct RelayoutTime {
  int64_t weight_bytes;
  int64_t link_bytes;
  double link_ns, link_closed_form_ns;
  double host_ns, host_closed_form_ns;
  double link_nj, channel_nj;  // the link alone; the channels alone, the way there and back
};

// Throws Error for sizes that are not positive, or weights that do not fit the DIMM.
RelayoutTime relayout_time(const DramSpec& spec, const CoreConfig& core, const RelayoutCase& one);

}  // namespace trimoe::ndp
