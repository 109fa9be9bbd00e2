// REDUCE: the sum over all ranks, in one fixed order, times scale, in the buffer of the first rank.
//   slot, tokens; buf_in: what GEMM_DN left; buf_out: fp32 [tokens, H]; flag: add to what is there.
#include <cstring>

#include "ndp/commands/compute.h"

namespace trimoe::ndp {

Outcome plan_reduce(const Call& call) {
  const Work work = work_of(call);
  if (work.status != Status::kOk) return refused(work.status);
  DimmState& dimm = call.dimm;
  const Descriptor d = call.descriptor;
  for (const int rank : work.ranks)
    if (!call.buffer(rank, d.buf_in, work.result_bytes())) return refused(Status::kBufOverflow);
  if (!call.buffer(work.ranks[0], d.buf_out, work.result_bytes())) return refused(Status::kBufOverflow);
  return {Status::kOk, time_of(dimm, work).reduce_ns, [&dimm, d, work](double share) {
            if (share < 1 || !dimm.computes) return Status::kOk;
            std::vector<std::byte> room;
            const CoreExpert expert = work.expert(dimm, room);
            if (!expert.data) return Status::kBadAddress;  // released meanwhile
            std::vector<const float*> partials;
            partials.reserve(dimm.ranks.size());
            for (Rank& rank : dimm.ranks)
              partials.push_back(reinterpret_cast<const float*>(rank.buffer.data() + d.buf_in));
            std::byte* at = dimm.ranks[0].buffer.data() + d.buf_out;
            const auto bytes = static_cast<size_t>(work.result_bytes());
            std::vector<float> result(bytes / 4);  // apart: the places may be the same
            if (d.has(kAccumulate)) std::memcpy(result.data(), at, bytes);
            reduce(expert, partials, work.tokens, d.scale, d.has(kAccumulate), result.data());
            std::memcpy(at, result.data(), bytes);
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
