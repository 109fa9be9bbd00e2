// The address space of a DIMM: regions that are allocated, or that show bytes of the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "packed/layout.h"

namespace trimoe::ndp {

// Zeroed bytes that kernels of the host may read: they begin with a line and end with one.
std::shared_ptr<std::byte> zeroed_lines(int64_t bytes);

class Memory {
 public:
  explicit Memory(int64_t capacity) : capacity_(capacity) { free(0, capacity); }

  // Zeroed. Throws Error when there is no gap of so many bytes, as those below do.
  int64_t allocate(int64_t bytes);
  // Bytes of the host that become a region: one copy of the weights, as DIMMs are host memory. hold(): that
  // commands may write to.
  int64_t map(std::shared_ptr<const std::byte> data, int64_t bytes);
  int64_t hold(std::shared_ptr<std::byte> data, int64_t bytes);
  // What kept the bytes, for the caller to let go of. Throws Error unless a region begins there.
  std::shared_ptr<const void> release(int64_t address);

  // Null unless the bytes lie within one region; write(): one that may be written to.
  const std::byte* read(uint64_t address, int64_t bytes) const;
  std::byte* write(uint64_t address, int64_t bytes);

  // An uncorrectable error at an address, until its region is released.
  void poison(uint64_t address) { poisoned_.push_back(address); }
  bool is_poisoned(uint64_t address, int64_t bytes) const;

  int64_t capacity() const { return capacity_; }
  int64_t used_bytes() const { return used_; }
  bool has_room(int64_t bytes) const { return gap_for(bytes) >= 0; }

 private:
  struct Region {
    int64_t bytes = 0;
    std::shared_ptr<const std::byte> data;
    std::byte* writable = nullptr;  // the same bytes, where they may be written to
  };
  using Regions = std::map<int64_t, Region>;

  int64_t gap_for(int64_t bytes) const;  // the address of the first, -1 for none
  int64_t find_gap(int64_t bytes) const;
  void free(int64_t from, int64_t end);
  int64_t add(Region region);
  Regions::const_iterator find(uint64_t address, int64_t bytes) const;

  int64_t capacity_;
  int64_t used_ = 0;
  Regions regions_;
  // Where nothing is, by address; never two beside each other. They begin with a line.
  std::map<int64_t, int64_t> gaps_;
  std::vector<uint64_t> poisoned_;
};

}  // namespace trimoe::ndp
