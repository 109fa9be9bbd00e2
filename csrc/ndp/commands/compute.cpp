#include "ndp/commands/compute.h"

#include <cmath>

#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {
namespace {

// A descriptor streams the weights once: what does not fit the buffer is the host's to cut up.
constexpr int64_t kOnePass = int64_t{1} << 60;

int64_t streamed_bytes(const Work& work, const Slice& slice, Matrices which) {
  const ExpertShape& shape = work.shape;
  const PackedMatrix matrix = shape.gate_up();
  const int64_t bias_bytes = (shape.down_bias_offset() - shape.gate_up_bias_offset()) / matrix.panels;
  if (which == Matrices::kGateUp) return slice.panels * (matrix.panel_bytes() + bias_bytes);
  const int64_t down_bytes = shape.expert_bytes() - matrix.panels * (matrix.panel_bytes() + bias_bytes);
  return down_bytes * slice.k_end / shape.inter - down_bytes * slice.k_begin / shape.inter;
}

}  // namespace

CoreExpert Work::expert(const DimmState& dimm, std::vector<std::byte>& room) const {
  return {shape, number, bytes_together(*dimm.peers, pieces, room)};
}

Work work_of(const Call& call) {
  const Descriptor& d = call.descriptor;
  Work work;
  const auto refuse = [&](Status status) {
    work.status = status;
    return work;
  };
  if (d.tokens == 0 || d.buf_in % kBufferAlign != 0 || d.buf_out % kBufferAlign != 0)
    return refuse(Status::kBadField);
  const ExpertSlot* slot = call.slot();
  if (!slot) return refuse(Status::kBadSlot);
  work.ranks = call.ranks();
  work.shape = slot->shape;
  work.number = slot->number;
  work.pieces = slot->pieces;
  work.tokens = d.tokens;
  if (!work.is_gathered() && !slot->is_localized(call.dimm.id)) return refuse(Status::kBadSlot);
  Peers& peers = *call.dimm.peers;
  if (is_poisoned(peers, work.pieces)) return refuse(Status::kEcc);
  if (const Status status = check_pieces(peers, work.pieces, false); status != Status::kOk)
    return refuse(status);
  if (work.is_gathered())
    for (const int id : dimms_of(work.pieces, {}))
      if (!peers.peer(id)->has_all_ranks()) return refuse(Status::kMode);
  return work;
}

Gather gather_of(const Call& call, const Work& work) {
  if (!work.is_gathered()) return {};
  Gather gather{dimms_of(work.pieces, {})};
  gather.links.insert(call.dimm.id);
  gather.wait_ns = link_free_ns(*call.dimm.peers, gather.links, call.start_ns) - call.start_ns;
  return gather;
}

Status gathered(const DimmState& dimm, const Work& work, double until_ns) {
  if (!work.is_gathered()) return Status::kOk;
  for (const int id : dimms_of(work.pieces, {}))
    if (!dimm.peers->peer(id)->answers(until_ns)) return Status::kTimeout;
  return is_poisoned(*dimm.peers, work.pieces) ? Status::kEcc : Status::kOk;
}

WorkTime time_of(const DimmState& dimm, const Work& work) {
  const ExpertShape& shape = work.shape;
  const PackedMatrix gate_up = shape.gate_up();
  // As packed: whole panels, whole tiles of k. An expert without a gate is one of two matrices instead of
  // three, that is a third less of I, half of it in each.
  const int64_t hidden = gate_up.k_padded, rows = gate_up.panels * shape.panel_width();
  const bool gated = shape.activation.gated;
  const int64_t inter = gated ? rows : ceil_div(rows * 2, 3);
  const double each = static_cast<double>(shape.expert_bytes()) / (3.0 * static_cast<double>(hidden * inter));
  CoreConfig core = dimm.config.core;
  core.buffer_bytes = kOnePass;
  const int dimms = work.is_gathered() ? static_cast<int>(dimms_of(work.pieces, {}).size()) : 1;
  const ExpertTime time = expert_time(*dimm.config.spec, core,
                                      {hidden, inter, work.tokens, each, dimms, dimm.config.stream_share});
  // The link waits as long for either matrix as it is large.
  const double gate_up_ns = time.gate_up_ns + time.gather_ns * 2 / 3,
               down_ns = time.down_ns + time.gather_ns / 3;
  const double half_ns = (gate_up_ns + down_ns) / 2;
  return {gated ? gate_up_ns : half_ns, gated ? down_ns : half_ns,
          reduce_ns(core, {shape.hidden, inter, work.tokens}), time.dram_nj};
}

void count_stream(DimmState& dimm, const Work& work, Matrices which, double share) {
  const auto all = static_cast<double>(work.shape.expert_bytes());
  int64_t bytes = 0;
  for (const int rank : work.ranks) bytes += streamed_bytes(work, work.slice(rank, dimm), which);
  const double dram_nj = time_of(dimm, work).dram_nj;
  for (const Piece& piece : work.pieces) {
    DimmState* owner = dimm.peers->peer(dimm_of(piece.address));
    if (!owner) continue;
    // The piece's part of gate and up; of down what is left of it.
    const auto part = [&](double of) { return std::llround(static_cast<double>(piece.bytes) * of / all); };
    const auto matrix = static_cast<double>(bytes);
    const double streamed =
        share *
        static_cast<double>(which == Matrices::kGateUp ? part(matrix) : piece.bytes - part(all - matrix));
    owner->counters.dram_read_bytes += static_cast<int64_t>(streamed);
    owner->counters.dram_nj += dram_nj * streamed / all;
    if (owner != &dimm) count_link(*owner, static_cast<int64_t>(streamed));
  }
}

}  // namespace trimoe::ndp
