// RELAYOUT: an expert's bytes to other places, one piece here (localized) or many on many DIMMs (striped).
// Until the commit the old places count.
//   slot; payload in: the new Pieces, in order, their CRC in stride.
#include <cstring>

#include "ndp/commands/command.h"
#include "ndp/dimm/rates.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {

Outcome plan_relayout(const Call& call) {
  DimmState& dimm = call.dimm;
  Peers& peers = *dimm.peers;
  const ExpertSlot* slot = call.slot();
  if (!slot) return refused(Status::kBadSlot);
  const auto& list = call.payload.in;
  if (list.empty() || list.size() % sizeof(Piece) != 0) return refused(Status::kBadField);
  if (crc32c(list.data(), list.size()) != call.descriptor.stride) return refused(Status::kBadCrc);
  std::vector<Piece> pieces(list.size() / sizeof(Piece));
  std::memcpy(pieces.data(), list.data(), list.size());
  const std::vector<Piece> old = slot->pieces;
  const Status status = check_pieces(peers, pieces, true);
  if (status != Status::kOk) return refused(status);
  if (bytes_of(pieces) != bytes_of(old) || overlap(pieces, old)) return refused(Status::kBadField);
  const std::set<int> links = dimms_of(old, pieces);
  for (const int id : links)
    if (!peers.peer(id)->has_all_ranks()) return refused(Status::kMode);
  const auto list_bytes = static_cast<int64_t>(list.size());
  const double listed = call.start_ns + channel_ns(*dimm.config.spec, list_bytes);
  const double start = link_free_ns(peers, links, listed);
  const double end = start + transfer_ns(dimm.config, old, pieces);
  return {Status::kOk, end - call.start_ns,
          [&dimm, old, pieces, number = call.descriptor.slot, list_bytes, start, end](double share) {
            count_channel(dimm, list_bytes);
            const Status copied = copy_pieces(*dimm.peers, old, pieces, start, end, share);
            if (copied != Status::kOk) return copied;
            if (!is_same(*dimm.peers, old, pieces)) return Status::kEcc;
            dimm.slots.at(number).pieces = pieces;  // the commit
            return Status::kOk;
          },
          links};
}

}  // namespace trimoe::ndp
