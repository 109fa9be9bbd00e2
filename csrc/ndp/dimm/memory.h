// The address space of a DIMM: regions that are allocated, or that show bytes of the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "common/layout.h"

namespace trimoe::ndp {

class Memory {
 public:
  explicit Memory(int64_t capacity) : capacity_(capacity) {}

  // Zeroed. Throws Error when there is no gap of so many bytes.
  int64_t allocate(int64_t bytes);
  // Bytes that lie in host memory already, read-only: one copy of the weights, as DIMMs are host memory.
  int64_t map(const std::byte* data, int64_t bytes, std::shared_ptr<const void> owner);
  // Throws Error unless a region begins there.
  void release(int64_t address);

  // Null unless the bytes lie within one region; write(): one that was allocated.
  const std::byte* read(uint64_t address, int64_t bytes) const;
  std::byte* write(uint64_t address, int64_t bytes);

  // An uncorrectable error at an address, until its region is released.
  void poison(uint64_t address) { poisoned_.push_back(address); }
  bool is_poisoned(uint64_t address, int64_t bytes) const;

  int64_t capacity() const { return capacity_; }
  int64_t used_bytes() const { return used_; }
  bool has_room(int64_t bytes) const { return gap_for(bytes) >= 0; }

 private:
  // A line, as kernels of the host may read it.
  struct alignas(kLineBytes) Line {
    std::byte bytes[kLineBytes];
  };
  struct Region {
    int64_t bytes = 0;
    std::vector<Line> own;
    const std::byte* mapped = nullptr;
    std::shared_ptr<const void> owner;
  };
  using Regions = std::map<int64_t, Region>;

  int64_t gap_for(int64_t bytes) const;  // its address, -1 for none
  int64_t find_gap(int64_t bytes) const;
  Regions::const_iterator find(uint64_t address, int64_t bytes) const;

  int64_t capacity_;
  int64_t used_ = 0;
  Regions regions_;
  std::vector<uint64_t> poisoned_;
};

}  // namespace trimoe::ndp
