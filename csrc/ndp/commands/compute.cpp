#include "ndp/commands/compute.h"

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

CoreExpert Work::expert(const DimmState& dimm) const {
  return {shape, number, dimm.memory.read(address, shape.expert_bytes())};
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
  if (!slot || !slot->is_localized(call.dimm.id)) return refuse(Status::kBadSlot);
  work.ranks = call.ranks();
  work.shape = slot->shape;
  work.number = slot->number;
  work.address = local_of(slot->pieces[0].address);
  work.tokens = d.tokens;
  if (call.dimm.memory.is_poisoned(work.address, work.shape.expert_bytes())) return refuse(Status::kEcc);
  if (!work.expert(call.dimm).data) return refuse(Status::kBadAddress);
  return work;
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
  const ExpertTime time =
      expert_time(*dimm.config.spec, core, {hidden, inter, work.tokens, each, 1, dimm.config.stream_share});
  const double half_ns = (time.gate_up_ns + time.down_ns) / 2;
  return {gated ? time.gate_up_ns : half_ns, gated ? time.down_ns : half_ns,
          reduce_ns(core, {shape.hidden, inter, work.tokens}), time.dram_nj};
}

void count_stream(DimmState& dimm, const Work& work, Matrices which, double share) {
  int64_t bytes = 0;
  for (const int rank : work.ranks) bytes += streamed_bytes(work, work.slice(rank, dimm), which);
  const double streamed = static_cast<double>(bytes) * share;
  dimm.counters.dram_read_bytes += static_cast<int64_t>(streamed);
  dimm.counters.dram_nj +=
      time_of(dimm, work).dram_nj * streamed / static_cast<double>(work.shape.expert_bytes());
}

}  // namespace trimoe::ndp
