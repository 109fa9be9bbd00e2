// What the commands that multiply have in common: the expert, its slices, how long they take.
#pragma once

#include "ndp/commands/command.h"

namespace trimoe::ndp {

// An expert that this DIMM can run, some tokens of it, and the ranks that take part.
struct Work {
  Status status = Status::kOk;  // why it cannot be run
  ExpertShape shape;
  Number number = Number::kBf16;
  std::vector<Piece> pieces;  // one, on this DIMM; or many, of which it gathers those of others over the link
  int64_t tokens = 0;
  std::vector<int> ranks;

  bool is_gathered() const { return pieces.size() > 1; }
  // With its bytes as they lie now, put together in `room` where they lie apart; without any when some have
  // been released since.
  CoreExpert expert(const DimmState& dimm, std::vector<std::byte>& room) const;
  Slice slice(int rank, const DimmState& dimm) const { return slice_of(shape, rank, dimm.config.core.ranks); }
  int64_t input_bytes() const { return tokens * shape.hidden * 2; }
  int64_t result_bytes() const { return tokens * shape.hidden * 4; }
  int64_t sums_bytes(const Slice& slice) const { return tokens * slice.panels * kPanelCols * 4; }
  int64_t h_bytes(const Slice& slice) const { return tokens * (slice.k_end - slice.k_begin) * 2; }
};

Work work_of(const Call& call);

// The link ports that gathering an expert takes, none for one that lies here, and how long they keep it
// waiting. A DIMM that falls silent before `until_ns`, or memory that cannot be read, ends the gather.
struct Gather {
  std::set<int> links;
  double wait_ns = 0;
};
Gather gather_of(const Call& call, const Work& work);
Status gathered(const DimmState& dimm, const Work& work, double until_ns);

// Nanoseconds of the phases, all ranks at once, for the tokens of the work, the weights streamed once; where
// they are gathered, the link's part included.
struct WorkTime {
  double gate_up_ns, down_ns, reduce_ns;
  double dram_nj;
};
WorkTime time_of(const DimmState& dimm, const Work& work);

// Which weights a rank streams; of all ranks they add up to the bytes of the expert.
enum class Matrices : uint8_t { kGateUp, kDown };

// The bytes and the energy of a stream over weights, `share` of which was done, on every DIMM that reads
// some.
void count_stream(DimmState& dimm, const Work& work, Matrices which, double share);

constexpr uint64_t kBufferAlign = 64;  // of offsets

}  // namespace trimoe::ndp
