// Experts from DIMM to DIMM and from layout to layout. The old copy counts until the DIMM has committed; what
// was allocated for a new one that failed is given back.
#include <algorithm>
#include <cstring>

#include "ndp/dimm/rates.h"
#include "ndp/dimm/transfer.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {

double Fleet::migrate(int64_t expert, int to) {
  const std::lock_guard lock(mutex_);
  Resident moved = find(expert);
  const Resident old = moved;
  dimm(to);  // there must be one
  check(old.slot.pieces.size() == 1, "an expert that lies on one DIMM", "a striped one", "relayout() first");
  if (to == old.dimm) return 0;
  const double start = start_step();
  moved.dimm = to;
  moved.number = free_slot(to);
  moved.slot.pieces = allocate(old.slot.pieces[0].bytes, {to});
  Descriptor d;
  d.opcode = static_cast<uint8_t>(Opcode::kMigrate);
  d.rank_mask = 0xff;
  d.slot = old.number;
  d.dst_addr = moved.slot.pieces[0].address;
  d.buf_in = moved.number;
  commit(expert, old, moved, d, {});
  return finish_move(start);
}

double Fleet::relayout(int64_t expert, bool striped) {
  const std::lock_guard lock(mutex_);
  Resident moved = find(expert);
  const Resident old = moved;
  if (striped == (old.slot.pieces.size() > 1)) return 0;
  const double start = start_step();
  moved.slot.pieces = allocate(bytes_of(old.slot.pieces), striped ? alive() : std::vector<int>{old.dimm});
  const auto list = std::as_bytes(std::span(moved.slot.pieces));
  Descriptor d;
  d.opcode = static_cast<uint8_t>(Opcode::kRelayout);
  d.rank_mask = 0xff;
  d.slot = old.number;
  d.stride = crc32c(list.data(), list.size());
  commit(expert, old, moved, d, {list, {}});
  return finish_move(start);
}

void Fleet::commit(int64_t expert, const Resident& old, const Resident& moved, const Descriptor& descriptor,
                   const Payload& payload) {
  Status status = set_mode(old.dimm, Mode::kExclusive);
  if (status == Status::kOk) status = command(old.dimm, descriptor, payload);
  set_mode(old.dimm, Mode::kHost);
  if (status != Status::kOk) {
    release(moved.slot.pieces);
    throw DimmError(old.dimm, status, find_command(descriptor.opcode)->name);
  }
  release(old.slot.pieces);
  residents_[expert] = moved;
}

double Fleet::finish_move(double start_ns) {
  const double ns = step_ns(start_ns);
  ++counters_.moves;
  counters_.move_ns += ns;
  return ns;
}

int64_t Fleet::evacuate(int from) {
  const std::lock_guard lock(mutex_);
  dimm(from);
  std::vector<int> others = alive();
  std::erase(others, from);
  check(!others.empty(), "another DIMM that answers", "none", "the CPU for its experts");
  int64_t moved = 0;
  for (auto& [expert, resident] : residents_) {
    const auto& pieces = resident.slot.pieces;
    if (std::none_of(pieces.begin(), pieces.end(),
                     [&](const Piece& one) { return dimm_of(one.address) == from; }))
      continue;
    Resident next = resident;
    next.dimm = others[static_cast<size_t>(moved) % others.size()];
    next.number = free_slot(next.dimm);
    next.slot.pieces = allocate(bytes_of(pieces), {next.dimm});
    const double channel_gbps = dimm(from).state().config.spec->peak_gbps() * kSubChannels;
    copy_by_host(pieces, next.slot.pieces);
    counters_.move_ns += static_cast<double>(bytes_of(pieces)) / channel_gbps;
    const Status status = configure(next);
    if (status != Status::kOk) {
      release(next.slot.pieces);
      throw DimmError(next.dimm, status, "CFG_EXPERT");
    }
    dimm(resident.dimm).state().slots.erase(resident.number);
    release(pieces);
    resident = next;
    ++moved;
    ++counters_.moves;
  }
  return moved;
}

// Memory of a DIMM whose core is dead can still be read over the channel.
void Fleet::copy_by_host(const std::vector<Piece>& from, const std::vector<Piece>& to) {
  std::byte* target = peer(dimm_of(to[0].address))->memory.write(local_of(to[0].address), to[0].bytes);
  for (const Piece& piece : from) {
    const std::byte* source = peer(dimm_of(piece.address))->memory.read(local_of(piece.address), piece.bytes);
    std::memcpy(target, source, static_cast<size_t>(piece.bytes));
    target += piece.bytes;
  }
}

}  // namespace trimoe::ndp
