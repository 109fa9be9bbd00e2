// What the commands that multiply have in common: the expert, its slices, how long they take.
#pragma once

#include "ndp/commands/command.h"

namespace trimoe::ndp {

// An expert that this DIMM can run, some tokens of it, and the ranks that take part.
struct Work {
  Status status = Status::kOk;  // why it cannot be run
  CoreExpert expert;
  int64_t tokens = 0;
  std::vector<int> ranks;
  int64_t weight_bytes = 0;

  Slice slice(int rank, const DimmState& dimm) const {
    return slice_of(expert.shape, rank, dimm.config.core.ranks);
  }
  int64_t input_bytes() const { return tokens * expert.shape.hidden * 2; }
  int64_t result_bytes() const { return tokens * expert.shape.hidden * 4; }
  int64_t sums_bytes(const Slice& slice) const { return tokens * slice.panels * kPanelCols * 4; }
  int64_t h_bytes(const Slice& slice) const { return tokens * (slice.k_end - slice.k_begin) * 2; }
};

Work work_of(const Call& call);

// Of all ranks, for the tokens of the work, the weights streamed once.
ExpertTime time_of(const DimmState& dimm, const Work& work);

// The energy and the bytes of a stream over the weights, `share` of which was done.
void count_stream(DimmState& dimm, const Work& work, double weights_share, double share);

constexpr uint64_t kBufferAlign = 64;  // of offsets

}  // namespace trimoe::ndp
