#include "ndp/system/fleet.h"

#include <algorithm>
#include <cstring>

#include "common/layout.h"
#include "ndp/commands/compute.h"
#include "ndp/dimm/transfer.h"

namespace trimoe::ndp {

Fleet::Fleet(const DimmConfig& config, int dimms) {
  check(dimms >= 1 && dimms <= 256, "1 to 256 DIMMs", dimms, "16");
  for (int id = 0; id < dimms; ++id) dimms_.push_back(std::make_unique<Dimm>(id, config, this));
}

Dimm& Fleet::dimm(int index) {
  check(index >= 0 && index < size(), "a DIMM of the machine", index, "0 to the number of DIMMs - 1");
  return *dimms_[static_cast<size_t>(index)];
}

DimmState* Fleet::peer(int index) {
  return index >= 0 && index < size() ? &dimms_[static_cast<size_t>(index)]->state() : nullptr;
}

const Fleet::Resident& Fleet::find(int64_t expert) const {
  const auto found = residents_.find(expert);
  check(found != residents_.end(), "an expert that lies on a DIMM", expert, "placing it first");
  return found->second;
}

uint32_t Fleet::free_slot(int dimm) const {
  const auto& slots = dimms_[static_cast<size_t>(dimm)]->state().slots;
  uint32_t free = 0;
  for (const auto& [number, slot] : slots) {
    if (number != free) break;
    ++free;
  }
  return free;
}

void Fleet::place(int64_t expert, const ExpertShape& shape, Number number, const std::byte* data,
                  std::shared_ptr<const void> owner, int index) {
  const std::lock_guard lock(mutex_);
  validate(shape, number);
  check(!residents_.contains(expert), "an expert that lies on no DIMM yet", expert, "migrate()");
  check(tokens_that_fit(shape) >= 1, "a buffer that holds one token of the expert", shape.hidden,
        "a larger buffer");
  Memory& memory = dimm(index).state().memory;
  const int64_t bytes = shape.expert_bytes();
  const int64_t address = memory.map(data, bytes, std::move(owner));
  const Resident resident{
      {shape, number, {{remote(index, static_cast<uint64_t>(address)), bytes}}}, index, free_slot(index)};
  const Status status = configure(resident);
  if (status != Status::kOk) {
    memory.release(address);
    throw DimmError(index, status, "CFG_EXPERT");
  }
  residents_.emplace(expert, resident);
}

void Fleet::remove(int64_t expert) {
  const std::lock_guard lock(mutex_);
  const Resident resident = find(expert);
  dimm(resident.dimm).state().slots.erase(resident.number);
  release(resident.slot.pieces);
  residents_.erase(expert);
}

void Fleet::remove_all(int64_t first, int64_t end) {
  const std::lock_guard lock(mutex_);
  for (auto one = residents_.lower_bound(first); one != residents_.end() && one->first < end;) {
    dimm(one->second.dimm).state().slots.erase(one->second.number);
    release(one->second.slot.pieces);
    one = residents_.erase(one);
  }
}

Location Fleet::where(int64_t expert) const {
  const std::lock_guard lock(mutex_);
  const Resident& found = find(expert);
  return {found.dimm, found.number, found.slot.pieces.size() > 1, bytes_of(found.slot.pieces)};
}

int64_t Fleet::hidden_of(int64_t expert) const {
  const std::lock_guard lock(mutex_);
  return find(expert).slot.shape.hidden;
}

std::vector<std::byte> Fleet::read(int64_t expert) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::byte> bytes;
  for (const Piece& piece : find(expert).slot.pieces) {
    const Memory& memory = dimms_[static_cast<size_t>(dimm_of(piece.address))]->state().memory;
    const std::byte* from = memory.read(local_of(piece.address), piece.bytes);
    bytes.insert(bytes.end(), from, from + piece.bytes);
  }
  return bytes;
}

std::map<int, Status> Fleet::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

const Piece& Fleet::localized(int64_t expert) const {
  const auto& pieces = find(expert).slot.pieces;
  check(pieces.size() == 1, "an expert that lies on one DIMM", "a striped one", "relayout()");
  return pieces[0];
}

uint64_t Fleet::address_of(int64_t expert) const {
  const std::lock_guard lock(mutex_);
  return local_of(localized(expert).address);
}

const std::byte* Fleet::bytes_at(int64_t expert) const {
  const std::lock_guard lock(mutex_);
  const Piece& piece = localized(expert);
  const Memory& memory = dimms_[static_cast<size_t>(dimm_of(piece.address))]->state().memory;
  return memory.read(local_of(piece.address), piece.bytes);
}

FleetCounters Fleet::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

int64_t Fleet::tokens_that_fit(const ExpertShape& shape) const {
  const CoreConfig& core = dimms_[0]->state().config.core;
  int64_t panels = 0;
  for (int rank = 0; rank < core.ranks; ++rank)
    panels = std::max(panels, slice_of(shape, rank, core.ranks).panels);
  const int64_t token_bytes = shape.hidden * (2 + 4) + panels * kPanelCols * 4;
  const auto slack = static_cast<int64_t>(3 * kBufferAlign);  // between the three
  return std::min<int64_t>((core.buffer_bytes - slack) / token_bytes, 65535);
}

std::vector<int> Fleet::alive() const {
  std::vector<int> found;
  for (const auto& one : dimms_)
    if (!one->state().is_dead(clock_ns_)) found.push_back(one->state().id);
  return found;
}

// Evenly, in whole lines; the last parts can be smaller.
std::vector<Piece> Fleet::allocate(int64_t bytes, const std::vector<int>& on) {
  const int64_t part = round_up(ceil_div(bytes, std::ssize(on)), kLineBytes);
  std::vector<Piece> pieces;
  try {
    for (const int index : on) {
      const int64_t size = std::min(part, bytes - bytes_of(pieces));
      if (size <= 0) break;
      const int64_t address = dimm(index).state().memory.allocate(size);
      pieces.push_back({remote(index, static_cast<uint64_t>(address)), size});
    }
  } catch (...) {
    release(pieces);
    throw;
  }
  return pieces;
}

void Fleet::release(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces)
    dimm(dimm_of(piece.address)).state().memory.release(static_cast<int64_t>(local_of(piece.address)));
}

double Fleet::start_step() {
  for (const auto& one : dimms_) clock_ns_ = std::max(clock_ns_, one->now_ns());
  for (const auto& one : dimms_) one->advance(clock_ns_);
  return clock_ns_;
}

double Fleet::step_ns(double start_ns) {
  for (const auto& one : dimms_) clock_ns_ = std::max(clock_ns_, one->now_ns());
  return clock_ns_ - start_ns;
}

}  // namespace trimoe::ndp
