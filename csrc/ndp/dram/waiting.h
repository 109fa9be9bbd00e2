// The requests of one kind, reads or writes, that wait at a controller.
#pragma once

#include <cstdint>
#include <vector>

#include "ndp/dram/device.h"

namespace trimoe::ndp {

struct Request {
  Place place;
  bool write = false;
  int64_t arrival = 0;  // clock
  int64_t tag = 0;      // the caller's
};

// Sets of requests are words: a bit for each slot, the oldest request in the lowest one. Of the requests to a
// bank only two can be served next, the oldest to its open row and the oldest to any other row. These fronts
// are all that a scheduler has to look at, and they are kept apart by the command that they need.
class Waiting {
 public:
  static constexpr int kSlots = 64;
  static constexpr int kMaxRequests = kSlots - 1;

  struct alignas(64) Entry {
    Request request;
    int64_t seen;  // first clock at which it may be served
    int bank;
  };

  explicit Waiting(int banks);

  int size() const { return size_; }
  const Entry& operator[](int slot) const { return entries_[static_cast<size_t>(slot)]; }
  uint64_t columns() const { return columns_; }  // reads or writes
  uint64_t activates() const { return activates_; }
  uint64_t precharges() const { return precharges_; }

  void push(const Request& request, int bank, int64_t seen);
  Request take(int slot);
  // A row that is kept is not closed for others before the oldest request to its bank is taken, or release().
  void row_opened(int bank, int row, bool keep);
  void row_closed(int bank);
  void release();

 private:
  struct Bank {
    int row = kNoRow;  // that is open
    bool is_kept = false;
    uint64_t all = 0, hits = 0;  // hits: to the open row
  };

  Bank& of(int bank) { return banks_[static_cast<size_t>(bank)]; }
  void add(int slot);
  void file(const Bank& bank, uint64_t filed);
  void close_gaps();

  std::vector<Entry> entries_;
  std::vector<Bank> banks_;
  uint64_t used_ = 0, columns_ = 0, activates_ = 0, precharges_ = 0;
  int size_ = 0, end_ = 0;  // end: slot of the next one
};

}  // namespace trimoe::ndp
