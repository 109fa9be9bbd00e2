// GEMM_DN: each rank's part of the result, over its slice of I.
//   slot, tokens, rank_mask; buf_in: what SILU_MUL left; buf_out: fp32 [tokens, H].
#include "ndp/commands/compute.h"

namespace trimoe::ndp {

Outcome plan_gemm_dn(const Call& call) {
  const Work work = work_of(call);
  if (work.status != Status::kOk) return refused(work.status);
  DimmState& dimm = call.dimm;
  const Descriptor d = call.descriptor;
  for (const int rank : work.ranks)
    if (!call.buffer(rank, d.buf_in, work.h_bytes(work.slice(rank, dimm))) ||
        !call.buffer(rank, d.buf_out, work.result_bytes()))
      return refused(Status::kBufOverflow);
  const Gather gather = gather_of(call, work);
  const double ns = gather.wait_ns + time_of(dimm, work).down_ns;
  return {Status::kOk, ns,
          [&dimm, d, work, until_ns = call.start_ns + ns](double share) {
            count_stream(dimm, work, Matrices::kDown, share);
            const Status status = gathered(dimm, work, until_ns);
            if (share < 1 || status != Status::kOk || !dimm.computes) return status;
            std::vector<std::byte> room;
            const CoreExpert expert = work.expert(dimm, room);
            if (!expert.data) return Status::kBadAddress;  // released meanwhile
            for (const int rank : work.ranks) {
              std::byte* buffer = dimm.ranks[static_cast<size_t>(rank)].buffer.data();
              down(expert, work.slice(rank, dimm), reinterpret_cast<const Bf16*>(buffer + d.buf_in),
                   work.tokens, reinterpret_cast<float*>(buffer + d.buf_out));
            }
            return Status::kOk;
          },
          gather.links};
}

}  // namespace trimoe::ndp
