#include "ndp/system/fleet.h"

#include <algorithm>
#include <cstring>

#include "ndp/commands/compute.h"
#include "ndp/dimm/transfer.h"
#include "ndp/system/split.h"
#include "packed/layout.h"

namespace trimoe::ndp {
namespace {

// The part of a split expert that begins there.
SplitPart part_at(int64_t begin, const ExpertShape& shape) { return {begin, begin + shape.inter, shape}; }

}  // namespace

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

void Fleet::place(int64_t expert, const ExpertShape& shape, Number number,
                  const std::shared_ptr<const std::byte>& data, int index, Layout layout) {
  const Lock lock(*this);
  dimm(index);  // there must be one
  validate(shape, number);
  check(!residents_.contains(expert), "an expert that lies on no DIMM yet", expert, "migrate()");
  const Resident resident = lay(shape, number, layout, index, data);
  try {
    for (const Held& held : resident.held)
      check(tokens_that_fit(held.slot.shape) >= 1, "a buffer that holds one token of the expert",
            shape.hidden, "a larger buffer");
    configure_all(resident);
  } catch (...) {
    drop(resident);
    throw;
  }
  residents_.emplace(expert, resident);
}

// Its slots; throws DimmError for the first DIMM that fails.
void Fleet::configure_all(const Resident& resident) {
  constexpr int kTries = 4;  // of a descriptor that arrives corrupt
  for (const Held& held : resident.held) {
    Status status = Status::kBadCrc;
    for (int tries = 0; tries < kTries && status == Status::kBadCrc; ++tries)
      status = configure(held.dimm, held.number, held.slot);
    if (status != Status::kOk) throw DimmError(held.dimm, status, "CFG_EXPERT");
  }
}

// The bytes become regions of those DIMMs, evenly and in whole lines; the last parts can be smaller.
std::vector<Piece> Fleet::spread(const std::shared_ptr<const std::byte>& data, bool writable, int64_t bytes,
                                 const std::vector<int>& on) {
  const int64_t part = round_up(ceil_div(bytes, std::ssize(on)), kLineBytes);
  std::vector<Piece> pieces;
  try {
    for (const int index : on) {
      const int64_t first = bytes_of(pieces), size = std::min(part, bytes - first);
      if (size <= 0) break;
      const std::shared_ptr<const std::byte> from(data, data.get() + first);
      Memory& memory = dimm(index).state().memory;
      const int64_t address =
          writable ? memory.hold(std::const_pointer_cast<std::byte>(from), size) : memory.map(from, size);
      pieces.push_back({remote(index, static_cast<uint64_t>(address)), size});
    }
  } catch (...) {
    release(pieces);
    throw;
  }
  return pieces;
}

// Where an expert will lie in that layout. Its bytes are those that are given, without a copy where they stay
// together; without any, the regions are new and empty, and it is not split.
Fleet::Resident Fleet::lay(const ExpertShape& shape, Number number, Layout layout, int home,
                           const std::shared_ptr<const std::byte>& data) {
  Resident resident{shape, number, layout, {}, data ? data : zeroed_lines(shape.expert_bytes())};
  const std::vector<int> on = layout == Layout::kLocalized ? std::vector<int>{home} : alive();
  check(layout == Layout::kLocalized || size() >= 2, "a fleet of two DIMMs or more", size(), "16");
  check<Failure>(layout == Layout::kLocalized || on.size() >= 2, "two DIMMs that answer", on.size(),
                 "localized experts, or reset()");
  if (layout != Layout::kSplit) {
    resident.held.push_back(
        {home, free_slot(home), {shape, number, spread(resident.whole, !data, shape.expert_bytes(), on)}});
    return resident;
  }
  const std::vector<SplitPart> parts = split(shape, static_cast<int>(on.size()));
  try {
    for (size_t i = 0; i < on.size(); ++i) {
      if (parts[i].begin == parts[i].end) continue;
      const int64_t bytes = parts[i].shape.expert_bytes();
      const std::shared_ptr<std::byte> part = zeroed_lines(bytes);
      cut_part(shape, resident.whole.get(), parts[i], part.get());
      resident.held.push_back(
          {on[i], free_slot(on[i]), {parts[i].shape, number, spread(part, false, bytes, {on[i]})}});
    }
  } catch (...) {
    drop(resident);
    throw;
  }
  return resident;
}

void Fleet::drop(const Resident& resident) {
  for (const Held& held : resident.held) {
    dimm(held.dimm).state().slots.erase(held.number);
    release(held.slot.pieces);
  }
  released_.push_back(resident.whole);
}

void Fleet::remove(int64_t expert) {
  const Lock lock(*this);
  drop(find(expert));
  residents_.erase(expert);
}

void Fleet::remove_all(int64_t first, int64_t end) {
  const Lock lock(*this);
  std::erase_if(residents_, [&](const auto& one) {
    const bool is_meant = one.first >= first && one.first < end;
    if (is_meant) drop(one.second);
    return is_meant;
  });
}

Location Fleet::where(int64_t expert) const {
  const Lock lock(*this);
  const Resident& found = find(expert);
  int64_t bytes = 0;
  for (const Held& held : found.held) bytes += bytes_of(held.slot.pieces);
  return {found.layout, found.held[0].dimm, found.held[0].number, bytes};
}

int64_t Fleet::hidden_of(int64_t expert) const {
  const Lock lock(*this);
  return find(expert).shape.hidden;
}

std::vector<std::byte> Fleet::read(int64_t expert) const {
  const Lock lock(*this);
  const Resident& found = find(expert);
  std::vector<std::byte> bytes(static_cast<size_t>(found.shape.expert_bytes()));
  put_together(found, bytes.data());
  return bytes;
}

std::vector<Packed> Fleet::packed(std::span<const int64_t> experts) const {
  std::vector<Packed> all;
  all.reserve(experts.size());
  const Lock lock(*this);
  for (const int64_t expert : experts) {
    const Resident& found = find(expert);
    all.push_back({found.layout, found.held[0].dimm, found.whole});
  }
  return all;
}

// The packed expert, from what lies on the DIMMs now.
void Fleet::put_together(const Resident& resident, std::byte* to) const {
  const bool is_split = resident.layout == Layout::kSplit;
  if (is_split) clear_expert(resident.shape, to);
  int64_t begin = 0;
  for (const Held& held : resident.held)
    for (const Piece& piece : held.slot.pieces) {
      const Memory& memory = dimms_[static_cast<size_t>(dimm_of(piece.address))]->state().memory;
      const std::byte* from = memory.read(local_of(piece.address), piece.bytes);
      if (is_split)
        join_part(resident.shape, part_at(begin, held.slot.shape), from, to);
      else
        std::memcpy(to + begin, from, static_cast<size_t>(piece.bytes));
      begin += is_split ? held.slot.shape.inter : piece.bytes;
    }
}

std::map<int, Status> Fleet::failures() const {
  const Lock lock(*this);
  return failures_;
}

const Fleet::Held& Fleet::localized(int64_t expert) const {
  const Resident& found = find(expert);
  check(found.layout == Layout::kLocalized, "an expert that lies on one DIMM",
        "a " + std::string(name_of(found.layout)) + " one", "relayout() to localized");
  return found.held[0];
}

uint64_t Fleet::address_of(int64_t expert) const {
  const Lock lock(*this);
  return local_of(localized(expert).slot.pieces[0].address);
}

FleetCounters Fleet::counters() const {
  const Lock lock(*this);
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
    if (one->state().answers(clock_ns_)) found.push_back(one->state().id);
  return found;
}

void Fleet::release(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces)
    released_.push_back(
        dimm(dimm_of(piece.address)).state().memory.release(static_cast<int64_t>(local_of(piece.address))));
}

// What a DIMM was given by descriptor comes first: it may reach other DIMMs.
double Fleet::start_step() {
  for (const auto& one : dimms_) clock_ns_ = std::max(clock_ns_, one->run());
  for (const auto& one : dimms_) one->advance(clock_ns_);
  return clock_ns_;
}

double Fleet::step_ns(double start_ns) {
  for (const auto& one : dimms_) clock_ns_ = std::max(clock_ns_, one->now_ns());
  return clock_ns_ - start_ns;
}

}  // namespace trimoe::ndp
