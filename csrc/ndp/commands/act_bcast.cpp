// ACT_BCAST: activations, bf16 [tokens, H], over the channel into the buffers of all ranks of the mask.
//   bytes, buf_in; payload in.
#include <cstring>

#include "ndp/commands/command.h"
#include "ndp/dimm/rates.h"

namespace trimoe::ndp {

Outcome plan_act_bcast(const Call& call) {
  const Descriptor& d = call.descriptor;
  if (d.bytes == 0 || call.payload.in.size() != d.bytes || call.ranks().empty())
    return refused(Status::kBadField);
  for (const int rank : call.ranks())
    if (!call.buffer(rank, d.buf_in, d.bytes)) return refused(Status::kBufOverflow);
  DimmState& dimm = call.dimm;
  const double ns = channel_ns(*dimm.config.spec, d.bytes);
  return {Status::kOk, ns,
          [&dimm, at = d.buf_in, from = call.payload.in, ranks = call.ranks()](double share) {
            const auto bytes = static_cast<size_t>(static_cast<double>(from.size()) * share);
            for (const int rank : ranks)
              std::memcpy(dimm.ranks[static_cast<size_t>(rank)].buffer.data() + at, from.data(), bytes);
            dimm.counters.channel_bytes += static_cast<int64_t>(bytes);
            return share < 1 ? Status::kAborted : Status::kOk;
          }};
}

}  // namespace trimoe::ndp
