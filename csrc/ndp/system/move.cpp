// Experts from DIMM to DIMM and from layout to layout. The old copy counts until the DIMM has committed; what
// was allocated for a new one that failed is given back.
#include <algorithm>
#include <cstring>
#include <exception>

#include "ndp/dimm/rates.h"
#include "ndp/dimm/transfer.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {
namespace {

constexpr int kTries = 4;  // of a descriptor that arrives corrupt

}  // namespace

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
  check(!striped || alive().size() >= 2, "two DIMMs that answer", "fewer", "a fleet of more");
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
  std::set<int> concerned = dimms_of(old.slot.pieces, moved.slot.pieces);
  concerned.insert(old.dimm);
  Status status = Status::kOk;
  int failed = old.dimm;
  for (const int one : concerned) {
    if (status == Status::kOk) status = set_mode(one, Mode::kExclusive);
    if (status != Status::kOk) {
      failed = one;
      break;
    }
  }
  if (status == Status::kOk) status = command(old.dimm, descriptor, payload);
  start_step();
  if (status == Status::kTimeout)
    for (const int one : concerned)
      if (!dimm(one).state().answers(clock_ns_)) failed = one;
  for (const int one : concerned) return_ranks(one);
  if (status != Status::kOk) {
    release(moved.slot.pieces);
    throw DimmError(failed, status, find_command(descriptor.opcode)->name);
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
  dimm(from);  // there must be one
  const double start = start_step();
  std::vector<int> others = alive();
  std::erase(others, from);
  int64_t moved = 0;
  std::exception_ptr failure;
  for (auto& [expert, resident] : residents_) {
    if (!dimms_of(resident.slot.pieces, {}).contains(from)) continue;
    try {
      resident = settle(resident, others, moved);
      ++moved;
    } catch (const Error&) {
      if (!failure) failure = std::current_exception();
    }
  }
  counters_.moves += moved;
  counters_.move_ns += step_ns(start);
  if (failure) std::rethrow_exception(failure);
  return moved;
}

// Where the expert lies afterwards: on the first of the others, from its turn on, that takes it.
Fleet::Resident Fleet::settle(const Resident& resident, const std::vector<int>& others, int64_t turn) {
  const auto& pieces = resident.slot.pieces;
  for (size_t i = 0; i < others.size(); ++i) {
    const int to = others[(static_cast<size_t>(turn) + i) % others.size()];
    if (!dimm(to).state().memory.has_room(bytes_of(pieces))) continue;
    Resident next{resident.slot, to, free_slot(to)};
    next.slot.pieces = allocate(bytes_of(pieces), {to});
    Status status = copy_by_host(pieces, next.slot.pieces);
    if (status != Status::kOk) {
      release(next.slot.pieces);
      throw DimmError(resident.dimm, status, "copying an expert");
    }
    for (int tries = 0; tries < kTries && (tries == 0 || status == Status::kBadCrc); ++tries)
      status = configure(next);
    if (status != Status::kOk) {
      release(next.slot.pieces);
      continue;
    }
    dimm(resident.dimm).state().slots.erase(resident.number);
    release(pieces);
    return next;
  }
  throw Error("another DIMM that answers and has room", "none", "the CPU for its experts");
}

// Memory of a DIMM whose core is dead can still be read over the channel; what is read is written elsewhere
// meanwhile.
Status Fleet::copy_by_host(const std::vector<Piece>& from, const std::vector<Piece>& to) {
  for (const Piece& piece : from)
    if (peer(dimm_of(piece.address))->memory.is_poisoned(local_of(piece.address), piece.bytes))
      return Status::kEcc;
  DimmState& there = *peer(dimm_of(to[0].address));
  std::byte* target = there.memory.write(local_of(to[0].address), to[0].bytes);
  for (const Piece& piece : from) {
    DimmState& here = *peer(dimm_of(piece.address));
    std::memcpy(target, here.memory.read(local_of(piece.address), piece.bytes),
                static_cast<size_t>(piece.bytes));
    target += piece.bytes;
    here.counters.dram_read_bytes += piece.bytes;
    there.counters.dram_written_bytes += piece.bytes;
    count_channel(here, piece.bytes);
    count_channel(there, piece.bytes);
  }
  clock_ns_ += static_cast<double>(to[0].bytes) / stream_gbps(*there.config.spec, 1);
  for (const auto& one : dimms_) one->advance(clock_ns_);
  return Status::kOk;
}

}  // namespace trimoe::ndp
