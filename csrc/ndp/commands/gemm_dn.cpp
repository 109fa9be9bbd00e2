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
  return {Status::kOk, time_of(dimm, work).down_ns, [&dimm, d, work](double share) {
            count_stream(dimm, work, 1.0 / 3, share);
            if (share < 1) return Status::kAborted;
            for (const int rank : work.ranks) {
              std::byte* buffer = dimm.ranks[static_cast<size_t>(rank)].buffer.data();
              down(work.expert, work.slice(rank, dimm), reinterpret_cast<const Bf16*>(buffer + d.buf_in),
                   work.tokens, reinterpret_cast<float*>(buffer + d.buf_out));
            }
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
