#include "ndp/dimm/memory.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/error.h"
#include "packed/layout.h"

namespace trimoe::ndp {
namespace {

struct alignas(kLineBytes) Line {
  std::byte bytes[kLineBytes];
};

}  // namespace

std::shared_ptr<std::byte> zeroed_lines(int64_t bytes) {
  const std::shared_ptr<Line[]> lines(new Line[static_cast<size_t>(ceil_div(bytes, kLineBytes))]());
  return {lines, lines[0].bytes};
}

int64_t Memory::gap_for(int64_t bytes) const {
  const auto fits = [&](const auto& gap) { return gap.second >= bytes; };
  const auto first = std::find_if(gaps_.begin(), gaps_.end(), fits);
  return first == gaps_.end() ? -1 : first->first;
}

void Memory::free(int64_t from, int64_t end) {
  if (from == end) return;
  const auto after = gaps_.find(end);
  if (after != gaps_.end()) {
    end += after->second;
    gaps_.erase(after);
  }
  const auto next = gaps_.lower_bound(from);
  if (next != gaps_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == from) {
      before->second = end - before->first;
      return;
    }
  }
  gaps_.emplace(from, end - from);
}

int64_t Memory::find_gap(int64_t bytes) const {
  check(bytes >= 1, "a region of at least one byte", bytes, "the bytes of an expert");
  const int64_t address = gap_for(bytes);
  check(address >= 0, "room in the DIMM", bytes, "another DIMM, or fewer experts");
  return address;
}

int64_t Memory::add(Region region) {
  const int64_t address = find_gap(region.bytes);
  const auto gap = gaps_.extract(address);
  const int64_t end = address + gap.mapped(), next = round_up(address + region.bytes, kLineBytes);
  if (next < end) gaps_.emplace(next, end - next);
  used_ += region.bytes;
  regions_.emplace(address, std::move(region));
  return address;
}

int64_t Memory::allocate(int64_t bytes) {
  find_gap(bytes);  // before so much is taken from the host
  return hold(zeroed_lines(bytes), bytes);
}

int64_t Memory::map(std::shared_ptr<const std::byte> data, int64_t bytes) {
  return add({bytes, std::move(data)});
}

int64_t Memory::hold(std::shared_ptr<std::byte> data, int64_t bytes) {
  std::byte* writable = data.get();
  return add({bytes, std::move(data), writable});
}

std::shared_ptr<const void> Memory::release(int64_t address) {
  const auto found = regions_.find(address);
  check(found != regions_.end(), "the address of a region", address, "what allocate() or map() returned");
  const auto end = static_cast<uint64_t>(address + found->second.bytes);
  std::erase_if(poisoned_, [&](uint64_t one) { return one >= static_cast<uint64_t>(address) && one < end; });
  used_ -= found->second.bytes;
  free(address, std::min(round_up(address + found->second.bytes, kLineBytes), capacity_));
  return regions_.extract(found).mapped().data;
}

Memory::Regions::const_iterator Memory::find(uint64_t address, int64_t bytes) const {
  if (address > static_cast<uint64_t>(capacity_) || bytes < 0) return regions_.end();
  const auto from = static_cast<int64_t>(address);
  auto after = regions_.upper_bound(from);
  if (after == regions_.begin()) return regions_.end();
  --after;
  return bytes <= after->second.bytes - (from - after->first) ? after : regions_.end();
}

const std::byte* Memory::read(uint64_t address, int64_t bytes) const {
  const auto found = find(address, bytes);
  if (found == regions_.end()) return nullptr;
  return found->second.data.get() + (static_cast<int64_t>(address) - found->first);
}

std::byte* Memory::write(uint64_t address, int64_t bytes) {
  const auto found = find(address, bytes);
  if (found == regions_.end() || !found->second.writable) return nullptr;
  return found->second.writable + (static_cast<int64_t>(address) - found->first);
}

bool Memory::is_poisoned(uint64_t address, int64_t bytes) const {
  return std::any_of(poisoned_.begin(), poisoned_.end(), [&](uint64_t one) {
    return one >= address && one - address < static_cast<uint64_t>(bytes);
  });
}

}  // namespace trimoe::ndp
