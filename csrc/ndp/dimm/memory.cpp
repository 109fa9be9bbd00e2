#include "ndp/dimm/memory.h"

#include <algorithm>

#include "common/error.h"
#include "common/layout.h"

namespace trimoe::ndp {

int64_t Memory::gap_for(int64_t bytes) const {
  int64_t from = 0;
  for (const auto& [address, region] : regions_) {
    if (address - from >= bytes) return from;
    from = round_up(address + region.bytes, kLineBytes);
  }
  return capacity_ - from >= bytes ? from : -1;
}

int64_t Memory::find_gap(int64_t bytes) const {
  check(bytes >= 1, "a region of at least one byte", bytes, "the bytes of an expert");
  const int64_t address = gap_for(bytes);
  check(address >= 0, "room in the DIMM", bytes, "another DIMM, or fewer experts");
  return address;
}

int64_t Memory::allocate(int64_t bytes) {
  const int64_t address = find_gap(bytes);
  Region region;
  region.bytes = bytes;
  region.own.resize(static_cast<size_t>(ceil_div(bytes, kLineBytes)));
  regions_.emplace(address, std::move(region));
  used_ += bytes;
  return address;
}

int64_t Memory::map(const std::byte* data, int64_t bytes, std::shared_ptr<const void> owner) {
  const int64_t address = find_gap(bytes);
  regions_.emplace(address, Region{bytes, {}, data, std::move(owner)});
  used_ += bytes;
  return address;
}

void Memory::release(int64_t address) {
  const auto found = regions_.find(address);
  check(found != regions_.end(), "the address of a region", address, "what allocate() or map() returned");
  const auto end = static_cast<uint64_t>(address + found->second.bytes);
  std::erase_if(poisoned_, [&](uint64_t one) { return one >= static_cast<uint64_t>(address) && one < end; });
  used_ -= found->second.bytes;
  regions_.erase(found);
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
  const Region& region = found->second;
  return (region.mapped ? region.mapped : region.own[0].bytes) +
         (static_cast<int64_t>(address) - found->first);
}

std::byte* Memory::write(uint64_t address, int64_t bytes) {
  const auto found = find(address, bytes);
  if (found == regions_.end() || found->second.mapped) return nullptr;
  return const_cast<std::byte*>(found->second.own[0].bytes) + (static_cast<int64_t>(address) - found->first);
}

bool Memory::is_poisoned(uint64_t address, int64_t bytes) const {
  return std::any_of(poisoned_.begin(), poisoned_.end(), [&](uint64_t one) {
    return one >= address && one - address < static_cast<uint64_t>(bytes);
  });
}

}  // namespace trimoe::ndp
