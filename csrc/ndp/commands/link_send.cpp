// LINK_SEND: bytes to the window that LINK_RECV opened on another DIMM.
//   weight_addr, bytes, dst_addr (remote).
#include <algorithm>

#include "ndp/commands/command.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {

Outcome plan_link_send(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  if (d.bytes == 0) return refused(Status::kBadField);
  const std::vector<Piece> from = {{remote(dimm.id, d.weight_addr), d.bytes}}, to = {{d.dst_addr, d.bytes}};
  DimmState* other = dimm.peers->peer(dimm_of(d.dst_addr));
  if (!other || check_pieces(*dimm.peers, from, false) != Status::kOk) return refused(Status::kBadAddress);
  const auto window = std::find_if(other->windows.begin(), other->windows.end(), [&](const Window& one) {
    const uint64_t at = local_of(d.dst_addr);
    return at >= one.address && at - one.address + d.bytes <= static_cast<uint64_t>(one.bytes);
  });
  if (window == other->windows.end()) return refused(Status::kBadAddress);
  other->windows.erase(window);
  const double end = reserve_link(dimm, {other->id}, d.bytes, call.start_ns);
  return {Status::kOk, end - call.start_ns,
          [&dimm, other, from, to, start = call.start_ns, end](double share) {
            const Status status = copy_pieces(*dimm.peers, from, to, start, end, share);
            if (status != Status::kOk) return share < 1 ? Status::kAborted : status;
            count_link(dimm, *other, from[0].bytes);
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
