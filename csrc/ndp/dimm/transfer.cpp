#include "ndp/dimm/transfer.h"

#include <algorithm>
#include <cstring>

#include "ndp/timing/closed_form.h"

namespace trimoe::ndp {
namespace {

// Calls visit(from, to, bytes) for every run of bytes that is one piece on both sides.
template <typename Visit>
void for_each_run(const std::vector<Piece>& from, const std::vector<Piece>& to, int64_t bytes,
                  const Visit& visit) {
  size_t f = 0, t = 0;
  for (int64_t done = 0, f_at = 0, t_at = 0; done < bytes && f < from.size() && t < to.size();) {
    const int64_t run = std::min({from[f].bytes - f_at, to[t].bytes - t_at, bytes - done});
    visit(from[f].address + static_cast<uint64_t>(f_at), to[t].address + static_cast<uint64_t>(t_at), run);
    done += run;
    if ((f_at += run) == from[f].bytes) ++f, f_at = 0;
    if ((t_at += run) == to[t].bytes) ++t, t_at = 0;
  }
}

const std::byte* bytes_at(Peers& peers, uint64_t address, int64_t bytes) {
  const DimmState* dimm = peers.peer(dimm_of(address));
  return dimm ? dimm->memory.read(local_of(address), bytes) : nullptr;
}

}  // namespace

double reserve_link(DimmState& dimm, const std::vector<int>& others, int64_t bytes, double start_ns) {
  double start = std::max(start_ns, dimm.link_free_ns);
  for (const int id : others)
    if (const DimmState* other = dimm.peers->peer(id)) start = std::max(start, other->link_free_ns);
  const auto amount = static_cast<double>(bytes);
  const double end = start + std::max(amount / stream_gbps(*dimm.config.spec, dimm.config.core.ranks),
                                      amount / dimm.config.core.link_gbps);
  dimm.link_free_ns = end;
  for (const int id : others)
    if (DimmState* other = dimm.peers->peer(id)) other->link_free_ns = end;
  return end;
}

Status check_pieces(Peers& peers, const std::vector<Piece>& pieces, bool writable) {
  for (const Piece& piece : pieces) {
    DimmState* dimm = peers.peer(dimm_of(piece.address));
    if (!dimm || piece.bytes <= 0) return Status::kBadAddress;
    const std::byte* found = writable ? dimm->memory.write(local_of(piece.address), piece.bytes)
                                      : dimm->memory.read(local_of(piece.address), piece.bytes);
    if (!found) return Status::kBadAddress;
  }
  return Status::kOk;
}

Status copy_pieces(Peers& peers, const std::vector<Piece>& from, const std::vector<Piece>& to,
                   double start_ns, double until_ns, double share) {
  for (const auto* side : {&from, &to})
    for (const Piece& piece : *side) {
      const DimmState* dimm = peers.peer(dimm_of(piece.address));
      if (!dimm) return Status::kBadAddress;
      if (side == &from && dimm->memory.is_poisoned(local_of(piece.address), piece.bytes))
        return Status::kEcc;
      if (dimm->is_dead(until_ns))
        share = std::min(share, std::max(0.0, (dimm->dies_at_ns - start_ns) / (until_ns - start_ns)));
    }
  const auto bytes = static_cast<int64_t>(share * static_cast<double>(bytes_of(from)));
  Status status = share < 1 ? Status::kTimeout : Status::kOk;
  for_each_run(from, to, bytes, [&](uint64_t source, uint64_t target, int64_t run) {
    const std::byte* read = bytes_at(peers, source, run);
    std::byte* written = peers.peer(dimm_of(target))->memory.write(local_of(target), run);
    if (!read || !written)
      status = Status::kBadAddress;
    else
      std::memmove(written, read, static_cast<size_t>(run));
  });
  return status;
}

bool is_same(Peers& peers, const std::vector<Piece>& one, const std::vector<Piece>& other) {
  bool same = bytes_of(one) == bytes_of(other);
  for_each_run(one, other, bytes_of(one), [&](uint64_t a, uint64_t b, int64_t run) {
    const std::byte *left = bytes_at(peers, a, run), *right = bytes_at(peers, b, run);
    same = same && left && right && std::memcmp(left, right, static_cast<size_t>(run)) == 0;
  });
  return same;
}

void count_link(DimmState& from, DimmState& to, int64_t bytes) {
  from.counters.dram_read_bytes += bytes;
  to.counters.dram_written_bytes += bytes;
  from.counters.link_bytes += bytes;
  from.counters.link_nj += static_cast<double>(bytes) * 8 * kLinkPjPerBit * 1e-3;
}

int64_t bytes_of(const std::vector<Piece>& pieces) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

int64_t bytes_elsewhere(const std::vector<Piece>& pieces, int dimm) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += dimm_of(piece.address) == dimm ? 0 : piece.bytes;
  return bytes;
}

}  // namespace trimoe::ndp
