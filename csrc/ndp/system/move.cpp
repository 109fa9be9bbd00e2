// Experts from DIMM to DIMM and from layout to layout. The old copy counts until the DIMM has committed; what
// was allocated for a new one that failed is given back.
#include <algorithm>
#include <exception>

#include "ndp/dimm/rates.h"
#include "ndp/dimm/transfer.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {

double Fleet::migrate(int64_t expert, int to) {
  const Lock lock(*this);
  const Held from = localized(expert);
  dimm(to);  // there must be one
  if (to == from.dimm) return 0;
  const double start = start_step();
  move_to(expert, to);
  return finish_move(start);
}

// Of a localized expert.
void Fleet::move_to(int64_t expert, int to) {
  const Resident old = find(expert);
  const Resident moved = lay(old.shape, old.number, Layout::kLocalized, to, nullptr);
  Descriptor d;
  d.opcode = static_cast<uint8_t>(Opcode::kMigrate);
  d.rank_mask = 0xff;
  d.slot = old.held[0].number;
  d.dst_addr = moved.held[0].slot.pieces[0].address;
  d.buf_in = moved.held[0].number;
  commit(expert, old, moved, d, {});
}

double Fleet::relayout(int64_t expert, Layout layout, int to) {
  const Lock lock(*this);
  const Resident old = find(expert);
  const int home = to < 0 ? old.held[0].dimm : to;
  dimm(home);  // there must be one
  if (layout == old.layout && (layout != Layout::kLocalized || home == old.held[0].dimm)) return 0;
  const double start = start_step();
  if (layout == old.layout) {
    move_to(expert, home);
  } else if (layout == Layout::kSplit || old.layout == Layout::kSplit) {
    residents_[expert] = moved_by_host(old, layout, home);
    drop(old);
  } else {
    take_slot(expert, home);
    respread(expert, layout);
  }
  return finish_move(start);
}

// The slot of a striped expert to another DIMM, which has to be told where the pieces lie.
void Fleet::take_slot(int64_t expert, int to) {
  Resident& resident = residents_.at(expert);
  Held& held = resident.held[0];
  if (resident.layout != Layout::kStriped || held.dimm == to) return;
  const uint32_t number = free_slot(to);
  if (const Status status = configure(to, number, held.slot); status != Status::kOk)
    throw DimmError(to, status, "CFG_EXPERT");
  dimm(held.dimm).state().slots.erase(held.number);
  held.dimm = to;
  held.number = number;
}

// From one DIMM to all, or back to the one that has the slot.
void Fleet::respread(int64_t expert, Layout layout) {
  const Resident old = find(expert);
  Resident moved = lay(old.shape, old.number, layout, old.held[0].dimm, nullptr);
  moved.held[0].number = old.held[0].number;
  const auto list = std::as_bytes(std::span(moved.held[0].slot.pieces));
  Descriptor d;
  d.opcode = static_cast<uint8_t>(Opcode::kRelayout);
  d.rank_mask = 0xff;
  d.slot = old.held[0].number;
  d.stride = crc32c(list.data(), list.size());
  commit(expert, old, moved, d, {list, {}});
}

// Of those DIMMs the first that does not answer.
int Fleet::silent_of(const std::set<int>& dimms, int otherwise) const {
  for (const int one : dimms)
    if (!dimms_[static_cast<size_t>(one)]->state().answers(clock_ns_)) return one;
  return otherwise;
}

void Fleet::commit(int64_t expert, const Resident& old, const Resident& moved, const Descriptor& descriptor,
                   const Payload& payload) {
  const std::vector<Piece>&from = old.held[0].slot.pieces, &to = moved.held[0].slot.pieces;
  const int driver = old.held[0].dimm;
  std::set<int> concerned = dimms_of(from, to);
  concerned.insert(driver);
  Status status = Status::kOk;
  int failed = driver;
  for (const int one : concerned) {
    if (status == Status::kOk) status = set_mode(one, Mode::kExclusive);
    if (status != Status::kOk) {
      failed = one;
      break;
    }
  }
  if (status == Status::kOk) status = command(driver, descriptor, payload);
  start_step();
  if (status == Status::kTimeout) failed = silent_of(concerned, failed);
  for (const int one : concerned) return_ranks(one);
  if (status != Status::kOk) {
    release(to);
    throw DimmError(failed, status, find_command(descriptor.opcode)->name);
  }
  release(from);
  released_.push_back(old.whole);
  residents_[expert] = moved;
}

double Fleet::finish_move(double start_ns) {
  const double ns = step_ns(start_ns);
  ++counters_.moves;
  counters_.move_ns += ns;
  return ns;
}

// That have bytes or a slot there, in order.
std::vector<int64_t> Fleet::experts_on(int index) const {
  std::vector<int64_t> found;
  for (const auto& [expert, resident] : residents_)
    if (std::ranges::any_of(resident.held, [&](const Held& held) {
          return held.dimm == index || dimms_of(held.slot.pieces, {}).contains(index);
        }))
      found.push_back(expert);
  std::ranges::sort(found);
  return found;
}

int64_t Fleet::evacuate(int from) {
  const Lock lock(*this);
  dimm(from);  // there must be one
  const double start = start_step();
  std::vector<int> others = alive();
  std::erase(others, from);
  int64_t moved = 0;
  std::exception_ptr failure;
  for (const int64_t expert : experts_on(from)) {
    Resident& resident = residents_.at(expert);
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
  for (size_t i = 0; i < others.size(); ++i) {
    const int to = others[(static_cast<size_t>(turn) + i) % others.size()];
    if (!dimm(to).state().memory.has_room(resident.shape.expert_bytes())) continue;
    try {
      const Resident next = moved_by_host(resident, Layout::kLocalized, to);
      drop(resident);
      return next;
    } catch (const DimmError& error) {
      if (error.status == Status::kEcc) throw;  // what cannot be read is no better for the next
    }
  }
  throw Failure("another DIMM that answers and has room", "none", "the CPU for its experts");
}

// A copy in that layout, its slots configured; the old one is still there. Memory of a DIMM whose core is
// dead can still be read over the channel.
Fleet::Resident Fleet::moved_by_host(const Resident& resident, Layout layout, int home) {
  for (const Held& held : resident.held)
    for (const Piece& piece : held.slot.pieces)
      if (is_poisoned(*this, {piece}))
        throw DimmError(dimm_of(piece.address), Status::kEcc, "copying an expert");
  std::shared_ptr<const std::byte> bytes = resident.whole;
  if (resident.layout == Layout::kSplit) {
    const std::shared_ptr<std::byte> joined = zeroed_lines(resident.shape.expert_bytes());
    put_together(resident, joined.get());
    bytes = joined;
  }
  const Resident next = lay(resident.shape, resident.number, layout, home, bytes);
  try {
    count_copy(resident, next);
    configure_all(next);
  } catch (...) {
    drop(next);
    throw;
  }
  return next;
}

// What is read from some is written to others meanwhile. That takes as long as the channel with most to do.
void Fleet::count_copy(const Resident& from, const Resident& to) {
  std::map<int, int64_t> crossing;
  const auto count = [&](const Resident& resident, int64_t DimmCounters::* counter) {
    for (const Held& held : resident.held)
      for (const Piece& piece : held.slot.pieces) {
        DimmState& owner = *peer(dimm_of(piece.address));
        owner.counters.*counter += piece.bytes;
        count_channel(owner, piece.bytes);
        crossing[owner.id] += piece.bytes;
      }
  };
  count(from, &DimmCounters::dram_read_bytes);
  count(to, &DimmCounters::dram_written_bytes);
  int64_t most = 0;
  for (const auto& [index, crossed] : crossing) most = std::max(most, crossed);
  clock_ns_ += static_cast<double>(most) / stream_gbps(*dimms_[0]->state().config.spec, 1);
  for (const auto& one : dimms_) one->advance(clock_ns_);
}

}  // namespace trimoe::ndp
