// Host and NDP on one DIMM: what each gets, simulated on the DRAM model. The protocol is an assumption.
#pragma once

#include <string_view>
#include <vector>

#include "ndp/sharing/host_port.h"

namespace trimoe::ndp {

// The host reads and writes one of the ranks of a DIMM; the NDP streams from all of them.
struct SharingCase {
  Mode mode = Mode::kExclusive;
  int ranks = 4;
  double host_gbps = 0;  // offered to the DIMM's channel, that is, to both sub-channels
  Pattern pattern = Pattern::kStream;
  int write_pct = 0;
  double max_window_ns = 0;  // kExclusive: of either side; 0: one nREFI
  double duration_ns = 300'000;
  int ndp_window = 64;  // bursts that the NDP asks for ahead
  int host_outstanding = 1024;
  RankPolicy policy;
  uint64_t seed = 1;
};

struct SharingResult {
  double rank_gbps;         // of one undisturbed rank
  double shared_rank_gbps;  // what the NDP gets of the rank that the host uses
  double ndp_gbps;          // and of all ranks, none of which waits for another
  double undisturbed_gbps;
  double host_gbps;
  // What opening rows again and switching costs beyond the bursts that the host took: 1 - ndp / ((R - u) B),
  // where u B is what the host got; 0 in kHost.
  double row_switch_loss;
  // Of reads that arrived after the warm-up, from arrival to the end of the data; 0 without any.
  int64_t host_reads;
  double latency_min_ns, latency_mean_ns, latency_p99_ns, latency_max_ns;
  // Of the shared rank's sub-channel that was simulated, from the first to the last clock.
  int64_t clocks, switches;
  int64_t host_refreshes, ndp_refreshes, due_refreshes, largest_debt;
  int64_t host_requests, host_served_once, ndp_requests, ndp_served, reads, writes;
  int deepest_fifo, deepest_commands;  // of any bank in kConcurrent

  double share() const { return ndp_gbps / undisturbed_gbps; }
  // Where all ranks do equal parts of one thing, all wait for the shared one.
  double share_in_step() const { return shared_rank_gbps / rank_gbps; }
};

// Throws Error for a case out of range. trace: every command to the shared rank.
SharingResult simulate_sharing(const DramSpec& spec, const SharingCase& one,
                               std::vector<RankCommand>* trace = nullptr);

// What the NDP keeps of the undisturbed stream: SharingResult::share().
double ndp_share(const DramSpec& spec, const SharingCase& one);

}  // namespace trimoe::ndp
