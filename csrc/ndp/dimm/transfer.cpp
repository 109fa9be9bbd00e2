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
    f_at += run;
    t_at += run;
    if (f_at == from[f].bytes) ++f, f_at = 0;
    if (t_at == to[t].bytes) ++t, t_at = 0;
  }
}

const std::byte* bytes_at(Peers& peers, uint64_t address, int64_t bytes) {
  const DimmState* dimm = peers.peer(dimm_of(address));
  return dimm ? dimm->memory.read(local_of(address), bytes) : nullptr;
}

void count_run(DimmState& reader, DimmState& writer, int64_t bytes) {
  reader.counters.dram_read_bytes += bytes;
  writer.counters.dram_written_bytes += bytes;
  if (reader.id != writer.id) count_link(reader, bytes);
}

}  // namespace

void count_link(DimmState& sender, int64_t bytes) {
  sender.counters.link_bytes += bytes;
  sender.counters.link_nj += static_cast<double>(bytes) * 8 * kLinkPjPerBit * 1e-3;
}

std::set<int> dimms_of(const std::vector<Piece>& one, const std::vector<Piece>& other) {
  std::set<int> found;
  for (const auto* pieces : {&one, &other})
    for (const Piece& piece : *pieces) found.insert(dimm_of(piece.address));
  return found;
}

double link_free_ns(Peers& peers, const std::set<int>& dimms, double start_ns) {
  for (const int id : dimms)
    if (const DimmState* dimm = peers.peer(id)) start_ns = std::max(start_ns, dimm->link_free_ns);
  return start_ns;
}

double transfer_ns(const DimmConfig& config, const std::vector<Piece>& from, const std::vector<Piece>& to) {
  std::map<int, int64_t> on_ranks, on_link;
  for_each_run(from, to, bytes_of(from), [&](uint64_t source, uint64_t target, int64_t run) {
    const int reader = dimm_of(source), writer = dimm_of(target);
    on_ranks[reader] += run;
    on_ranks[writer] += run;
    if (reader == writer) return;
    on_link[reader] += run;
    on_link[writer] += run;
  });
  const auto slowest = [](const std::map<int, int64_t>& bytes, double gbps) {
    double ns = 0;
    for (const auto& [dimm, amount] : bytes) ns = std::max(ns, static_cast<double>(amount) / gbps);
    return ns;
  };
  return std::max(slowest(on_ranks, stream_gbps(*config.spec, config.core.ranks)),
                  slowest(on_link, config.core.link_gbps));
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
  for (const int id : dimms_of(from, to)) {
    const DimmState* dimm = peers.peer(id);
    if (!dimm) return Status::kBadAddress;
    if (!dimm->answers(until_ns))
      share = std::min(share, std::max(0.0, (dimm->silent_ns() - start_ns) / (until_ns - start_ns)));
  }
  if (is_poisoned(peers, from)) return Status::kEcc;
  const auto bytes = static_cast<int64_t>(share * static_cast<double>(bytes_of(from)));
  Status status = share < 1 ? Status::kTimeout : Status::kOk;
  for_each_run(from, to, bytes, [&](uint64_t source, uint64_t target, int64_t run) {
    DimmState &reader = *peers.peer(dimm_of(source)), &writer = *peers.peer(dimm_of(target));
    const std::byte* read = reader.memory.read(local_of(source), run);
    std::byte* written = writer.memory.write(local_of(target), run);
    if (!read || !written) {
      status = Status::kBadAddress;
      return;
    }
    std::memmove(written, read, static_cast<size_t>(run));
    count_run(reader, writer, run);
  });
  return status;
}

bool is_poisoned(Peers& peers, const std::vector<Piece>& pieces) {
  return std::any_of(pieces.begin(), pieces.end(), [&](const Piece& piece) {
    const DimmState* dimm = peers.peer(dimm_of(piece.address));
    return dimm && dimm->memory.is_poisoned(local_of(piece.address), piece.bytes);
  });
}

const std::byte* bytes_together(Peers& peers, const std::vector<Piece>& pieces,
                                std::vector<std::byte>& room) {
  const std::byte* first = bytes_at(peers, pieces[0].address, pieces[0].bytes);
  const std::byte* next = first;
  bool is_whole = true;
  for (const Piece& piece : pieces) {
    const std::byte* found = bytes_at(peers, piece.address, piece.bytes);
    if (!found) return nullptr;
    is_whole = is_whole && found == next;
    next = found + piece.bytes;
  }
  if (is_whole) return first;
  room.clear();
  for (const Piece& piece : pieces) {
    const std::byte* found = bytes_at(peers, piece.address, piece.bytes);
    room.insert(room.end(), found, found + piece.bytes);
  }
  return room.data();
}

bool is_same(Peers& peers, const std::vector<Piece>& one, const std::vector<Piece>& other) {
  bool same = bytes_of(one) == bytes_of(other);
  for_each_run(one, other, bytes_of(one), [&](uint64_t a, uint64_t b, int64_t run) {
    const std::byte *left = bytes_at(peers, a, run), *right = bytes_at(peers, b, run);
    same = same && left && right && std::memcmp(left, right, static_cast<size_t>(run)) == 0;
  });
  return same;
}

bool overlap(const std::vector<Piece>& one, const std::vector<Piece>& other) {
  std::vector<Piece> all = one;
  all.insert(all.end(), other.begin(), other.end());
  std::sort(all.begin(), all.end(), [](const Piece& a, const Piece& b) { return a.address < b.address; });
  for (size_t i = 1; i < all.size(); ++i)
    if (all[i].address - all[i - 1].address < static_cast<uint64_t>(all[i - 1].bytes)) return true;
  return false;
}

int64_t bytes_of(const std::vector<Piece>& pieces) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

}  // namespace trimoe::ndp
