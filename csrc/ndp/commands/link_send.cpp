// LINK_SEND: bytes to the window that LINK_RECV opened on another DIMM.
//   weight_addr, bytes, dst_addr (remote).
#include <algorithm>

#include "ndp/commands/command.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {
namespace {

auto window_for(DimmState& dimm, const Piece& piece) {
  return std::find_if(dimm.windows.begin(), dimm.windows.end(), [&](const Window& one) {
    const uint64_t at = local_of(piece.address);
    return at >= one.address &&
           at - one.address + static_cast<uint64_t>(piece.bytes) <= static_cast<uint64_t>(one.bytes);
  });
}

}  // namespace

Outcome plan_link_send(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  if (d.bytes == 0) return refused(Status::kBadField);
  const std::vector<Piece> from = {{remote(dimm.id, d.weight_addr), d.bytes}}, to = {{d.dst_addr, d.bytes}};
  DimmState* other = dimm.peers->peer(dimm_of(d.dst_addr));
  if (!other || other == &dimm || d.weight_addr != local_of(d.weight_addr) ||
      check_pieces(*dimm.peers, from, false) != Status::kOk ||
      window_for(*other, to[0]) == other->windows.end())
    return refused(Status::kBadAddress);
  if (!other->has_all_ranks()) return refused(Status::kMode);
  const std::set<int> links = dimms_of(from, to);
  const double start = link_free_ns(*dimm.peers, links, call.start_ns);
  const double end = start + transfer_ns(dimm.config, from, to);
  return {Status::kOk, end - call.start_ns,
          [&dimm, other, from, to, start, end](double share) {
            const auto window = window_for(*other, to[0]);
            if (window == other->windows.end()) return Status::kBadAddress;  // RESET there
            other->windows.erase(window);
            return copy_pieces(*dimm.peers, from, to, start, end, share);
          },
          links};
}

}  // namespace trimoe::ndp
