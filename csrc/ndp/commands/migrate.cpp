// MIGRATE: an expert to another DIMM: LINK_SEND, LINK_RECV and a commit in one. Until the commit the slot
// here is valid and the one there is not, whatever fails in between.
//   slot; dst_addr (remote), a region there; buf_in: the slot there.
#include "ndp/commands/command.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {

Outcome plan_migrate(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  const ExpertSlot* slot = call.slot();
  DimmState* other = dimm.peers->peer(dimm_of(d.dst_addr));
  if (!slot || !slot->is_localized(dimm.id)) return refused(Status::kBadSlot);
  if (!other) return refused(Status::kBadAddress);
  if (d.buf_in >= static_cast<uint32_t>(other->config.slots) || other->slots.contains(d.buf_in))
    return refused(Status::kBadSlot);
  const int64_t bytes = slot->shape.expert_bytes();
  ExpertSlot moved = *slot;
  moved.pieces = {{d.dst_addr, bytes}};
  const Status status = check_pieces(*dimm.peers, moved.pieces, true);
  if (status != Status::kOk) return refused(status);
  const double end = reserve_link(dimm, {other->id}, bytes, call.start_ns);
  return {Status::kOk, end - call.start_ns,
          [&dimm, other, old = *slot, moved, source = d.slot, target = d.buf_in, start = call.start_ns,
           end](double share) {
            Peers& peers = *dimm.peers;
            const Status copied = copy_pieces(peers, old.pieces, moved.pieces, start, end, share);
            if (copied != Status::kOk) return share < 1 ? Status::kAborted : copied;
            count_link(dimm, *other, bytes_of(moved.pieces));
            if (!is_same(peers, old.pieces, moved.pieces)) return Status::kEcc;
            other->slots[target] = moved;  // the commit: from here on the new copy counts
            dimm.slots.erase(source);
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
