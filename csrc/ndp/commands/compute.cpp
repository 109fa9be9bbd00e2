#include "ndp/commands/compute.h"

namespace trimoe::ndp {

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
  if (work.ranks.empty()) return refuse(Status::kBadField);
  const uint64_t address = local_of(slot->pieces[0].address);
  work.weight_bytes = slot->shape.expert_bytes();
  if (call.dimm.memory.is_poisoned(address, work.weight_bytes)) return refuse(Status::kEcc);
  const std::byte* data = call.dimm.memory.read(address, work.weight_bytes);
  if (!data) return refuse(Status::kBadAddress);
  work.expert = {slot->shape, slot->number, data};
  work.tokens = d.tokens;
  return work;
}

ExpertTime time_of(const DimmState& dimm, const Work& work) {
  const ExpertShape& shape = work.expert.shape;
  const double each =
      static_cast<double>(work.weight_bytes) / (3.0 * static_cast<double>(shape.hidden * shape.inter));
  return expert_time(*dimm.config.spec, dimm.config.core, {shape.hidden, shape.inter, work.tokens, each});
}

void count_stream(DimmState& dimm, const Work& work, double weights_share, double share) {
  const double ranks = static_cast<double>(work.ranks.size()) / dimm.config.core.ranks;
  const double part = weights_share * share * ranks;
  dimm.counters.dram_read_bytes += static_cast<int64_t>(static_cast<double>(work.weight_bytes) * part);
  dimm.counters.dram_nj += time_of(dimm, work).dram_nj * part;
}

}  // namespace trimoe::ndp
