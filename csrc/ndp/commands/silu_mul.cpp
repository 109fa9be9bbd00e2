// SILU_MUL: h = act(gate) * up, bf16, of each rank's slice of I.
//   slot, tokens, rank_mask; buf_in: what GEMM_GU left; buf_out: bf16 [tokens, slice], may be the same place.
#include <cstring>

#include "ndp/commands/compute.h"

namespace trimoe::ndp {

Outcome plan_silu_mul(const Call& call) {
  const Work work = work_of(call);
  if (work.status != Status::kOk) return refused(work.status);
  DimmState& dimm = call.dimm;
  const Descriptor d = call.descriptor;
  for (const int rank : work.ranks) {
    const Slice slice = work.slice(rank, dimm);
    if (!call.buffer(rank, d.buf_in, work.sums_bytes(slice)) ||
        !call.buffer(rank, d.buf_out, work.h_bytes(slice)))
      return refused(Status::kBufOverflow);
  }
  const double ns = static_cast<double>(work.tokens * work.shape.inter) / dimm.config.silu_per_ns;
  return {Status::kOk, ns, [&dimm, d, work](double share) {
            if (share < 1 || !dimm.computes) return Status::kOk;
            std::vector<std::byte> room;
            const CoreExpert expert = work.expert(dimm, room);
            if (!expert.data) return Status::kBadAddress;  // released meanwhile
            for (const int rank : work.ranks) {
              const Slice slice = work.slice(rank, dimm);
              std::byte* buffer = dimm.ranks[static_cast<size_t>(rank)].buffer.data();
              std::vector<Bf16> h(static_cast<size_t>(work.h_bytes(slice) / 2));
              activate(expert, slice, reinterpret_cast<const float*>(buffer + d.buf_in), work.tokens,
                       h.data());
              std::memcpy(buffer + d.buf_out, h.data(), h.size() * sizeof(Bf16));
            }
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
