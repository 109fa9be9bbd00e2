// The host's side of one sub-channel: requests that arrive, wait, are sent to the rank, and are answered.
#pragma once

#include <deque>
#include <vector>

#include "ndp/dram/traffic.h"
#include "ndp/sharing/shared_rank.h"

namespace trimoe::ndp {

struct HostLoad {
  double gbps = 0;  // of this sub-channel
  Pattern pattern = Pattern::kStream;
  int write_pct = 0;
  int outstanding = 1024;  // requests that may wait, wherever in the host; then it stalls
  int return_batch = 8;    // bursts that come back together where the NDP's controller serves the host
  uint64_t seed = 1;
};

class HostPort {
 public:
  // Arrivals are drawn as a Poisson process; addresses are in the upper half of the rows. ranks: that share
  // the line which says that data is ready.
  HostPort(const DramSpec& spec, const HostLoad& load, int ranks);

  bool is_idle() const { return outstanding_ == 0; }

  // Clock of the next thing that happens without the rank, for a rank that has come to `now`.
  int64_t next_event(int64_t now) const;
  void arrive(int64_t now, int64_t end);  // requests up to now, none at `end` or later
  void feed(SharedRank& rank);            // what there is room for
  void served(const Served& one, Mode mode);
  void answer(const SharedRank& rank);  // batches that are full or have waited

  struct Answer {
    int64_t arrival, end;
    int times;  // 1: neither lost nor done twice
    bool write;
  };
  const std::vector<Answer>& answers() const { return answers_; }  // one a request, by tag

 private:
  void offload(RankRequest& request, int64_t now);
  void finish(int64_t tag, int64_t end);
  int64_t take_channel(int64_t from, bool write, int64_t bursts);

  DramSpec spec_;
  HostLoad load_;
  int ranks_;
  Traffic traffic_;
  Random random_;
  double period_, next_arrival_;  // clocks; infinite: nothing comes any more
  std::deque<RankRequest> backlog_;
  std::vector<int> offloaded_row_;  // of each bank, as the host sees it
  std::vector<Served> returns_;     // reads whose data waits on the DIMM, oldest first
  std::vector<Answer> answers_;
  int64_t outstanding_ = 0, command_bus_free_ = 0, channel_free_ = 0;
  bool channel_writes_ = false;
};

}  // namespace trimoe::ndp
