// RELAYOUT: an expert's bytes to other places, one piece here (localized) or many on many DIMMs (striped).
// Until the commit the old places count.
//   slot; payload in: the new Pieces, in order.
#include <cstring>

#include "ndp/commands/command.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {
namespace {

std::vector<int> dimms_of(const std::vector<Piece>& one, const std::vector<Piece>& other, int except) {
  std::vector<int> found;
  for (const auto* pieces : {&one, &other})
    for (const Piece& piece : *pieces)
      if (dimm_of(piece.address) != except) found.push_back(dimm_of(piece.address));
  return found;
}

}  // namespace

Outcome plan_relayout(const Call& call) {
  DimmState& dimm = call.dimm;
  const ExpertSlot* slot = call.slot();
  if (!slot) return refused(Status::kBadSlot);
  const auto& list = call.payload.in;
  if (list.empty() || list.size() % sizeof(Piece) != 0) return refused(Status::kBadField);
  if (crc32c(list.data(), list.size()) != call.descriptor.stride) return refused(Status::kBadCrc);
  std::vector<Piece> pieces(list.size() / sizeof(Piece));
  std::memcpy(pieces.data(), list.data(), list.size());
  const Status status = check_pieces(*dimm.peers, pieces, true);
  if (status != Status::kOk) return refused(status);
  if (bytes_of(pieces) != slot->shape.expert_bytes()) return refused(Status::kBadField);
  // What leaves this DIMM, or comes to it, crosses its link port; what stays does not.
  const int64_t bytes = std::max(bytes_elsewhere(pieces, dimm.id), bytes_elsewhere(slot->pieces, dimm.id));
  const auto others = dimms_of(pieces, slot->pieces, dimm.id);
  const double end = reserve_link(dimm, others, bytes, call.start_ns);
  return {Status::kOk, end - call.start_ns,
          [&dimm, old = slot->pieces, pieces, number = call.descriptor.slot, bytes, start = call.start_ns,
           end](double share) {
            Peers& peers = *dimm.peers;
            const Status copied = copy_pieces(peers, old, pieces, start, end, share);
            if (copied != Status::kOk) return share < 1 ? Status::kAborted : copied;
            count_link(dimm, dimm, bytes);
            if (!is_same(peers, old, pieces)) return Status::kEcc;
            dimm.slots[number].pieces = pieces;  // the commit
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
