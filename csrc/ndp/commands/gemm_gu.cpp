// GEMM_GU: sums of gate and up, fp32, of each rank's slice of I, from the activations in its buffer.
//   slot, tokens, rank_mask; buf_in: bf16 [tokens, H]; buf_out: fp32 [tokens, panels * 32].
#include "ndp/commands/compute.h"

namespace trimoe::ndp {

Outcome plan_gemm_gu(const Call& call) {
  const Work work = work_of(call);
  if (work.status != Status::kOk) return refused(work.status);
  DimmState& dimm = call.dimm;
  const Descriptor d = call.descriptor;
  for (const int rank : work.ranks)
    if (!call.buffer(rank, d.buf_in, work.input_bytes()) ||
        !call.buffer(rank, d.buf_out, work.sums_bytes(work.slice(rank, dimm))))
      return refused(Status::kBufOverflow);
  const Gather gather = gather_of(call, work);
  const double ns = gather.wait_ns + time_of(dimm, work).gate_up_ns;
  return {Status::kOk, ns,
          [&dimm, d, work, until_ns = call.start_ns + ns](double share) {
            count_stream(dimm, work, Matrices::kGateUp, share);
            const Status status = gathered(dimm, work, until_ns);
            if (share < 1 || status != Status::kOk || !dimm.computes) return status;
            std::vector<std::byte> room;
            const CoreExpert expert = work.expert(dimm, room);
            if (!expert.data) return Status::kBadAddress;  // released meanwhile
            for (const int rank : work.ranks) {
              std::byte* buffer = dimm.ranks[static_cast<size_t>(rank)].buffer.data();
              gate_up(expert, work.slice(rank, dimm), reinterpret_cast<const Bf16*>(buffer + d.buf_in),
                      work.tokens, reinterpret_cast<float*>(buffer + d.buf_out));
            }
            return Status::kOk;
          },
          gather.links};
}

}  // namespace trimoe::ndp
