// The requests of one kind, reads or writes, that wait at a controller.
#pragma once

#include <vector>

#include "ndp/dram/device.h"

namespace trimoe::ndp {

struct Request {
  Place place;
  bool write = false;
  int64_t arrival = 0;  // clock
  int64_t tag = 0;      // the caller's
};

// Of the requests to one bank only two can be the next one served: the oldest to the open row (its hit), and
// the oldest to any other row. A scheduler looks at these alone, through sets of banks: a bit for each.
class Waiting {
 public:
  struct Entry {
    Request request;
    int64_t order;  // of arrival, over both kinds
    int64_t seen;   // first clock at which it may be served
    int next;       // younger one to the same bank
  };

  Waiting(const Device& device, int room);

  int size() const { return size_; }
  void push(const Entry& entry, int bank, int open_row);
  Request take_hit(int bank, int open_row);
  void row_changed(int bank, int open_row);

  uint64_t hits(int rank) const { return hits_[static_cast<size_t>(rank)]; }
  uint64_t others(int rank) const { return others_[static_cast<size_t>(rank)]; }
  const Entry& hit(int bank) const { return entry(banks_[static_cast<size_t>(bank)].hit); }
  const Entry& other(int bank) const { return entry(banks_[static_cast<size_t>(bank)].other); }

 private:
  static constexpr int kNone = -1;
  struct Bank {
    int first = kNone, last = kNone, hit = kNone, other = kNone;
    size_t rank;
    uint64_t bit;
  };

  const Entry& entry(int slot) const { return entries_[static_cast<size_t>(slot)]; }
  Entry& entry(int slot) { return entries_[static_cast<size_t>(slot)]; }
  void mark(const Bank& bank);

  std::vector<Entry> entries_;
  std::vector<Bank> banks_;
  std::vector<uint64_t> hits_, others_;  // of each rank
  int free_ = 0, size_ = 0;
};

}  // namespace trimoe::ndp
