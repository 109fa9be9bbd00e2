#include "ndp/dram/waiting.h"

#include <bit>

namespace trimoe::ndp {
namespace {

constexpr uint64_t bit(int slot) { return uint64_t{1} << slot; }
constexpr uint64_t oldest(uint64_t slots) { return slots & (~slots + 1); }

}  // namespace

Waiting::Waiting(int banks) : entries_(kSlots), banks_(static_cast<size_t>(banks)) {}

// Puts the fronts of a bank where they belong. `filed`: what may have been there of it. Without branches,
// which nobody could predict.
inline void Waiting::file(const Bank& bank, uint64_t filed) {
  const auto all_if = [](bool so) { return uint64_t{0} - uint64_t{so}; };
  const bool is_open = bank.row != kNoRow;
  const uint64_t other = oldest(bank.all & ~bank.hits);
  columns_ = (columns_ & ~filed) | oldest(bank.hits);
  activates_ = (activates_ & ~filed) | (other & all_if(!is_open));
  precharges_ = (precharges_ & ~filed) | (other & all_if(is_open && !bank.is_kept));
}

void Waiting::push(const Request& request, int bank, int64_t seen) {
  if (end_ == kSlots) close_gaps();
  entries_[static_cast<size_t>(end_)] = {request, seen, bank};
  used_ |= bit(end_);
  ++size_;
  add(end_++);
}

// The youngest to its bank.
void Waiting::add(int slot) {
  const Entry& entry = (*this)[slot];
  Bank& bank = of(entry.bank);
  bank.all |= bit(slot);
  if (entry.request.place.row == bank.row) bank.hits |= bit(slot);
  file(bank, bank.all);
}

Request Waiting::take(int slot) {
  const Entry& entry = (*this)[slot];
  used_ &= ~bit(slot);
  --size_;
  Bank& bank = of(entry.bank);
  const uint64_t filed = bank.all;
  bank.all &= ~bit(slot);
  bank.hits &= ~bit(slot);
  bank.is_kept = false;
  file(bank, filed);
  return entry.request;
}

void Waiting::row_opened(int bank, int row, bool keep) {
  Bank& opened = of(bank);
  opened.row = row;
  if (opened.all == 0) return;
  opened.is_kept = keep;
  for (uint64_t rest = opened.all; rest != 0; rest &= rest - 1) {
    const int slot = std::countr_zero(rest);
    opened.hits |= uint64_t{(*this)[slot].request.place.row == row} << slot;
  }
  file(opened, opened.all);
}

void Waiting::row_closed(int bank) {
  Bank& closed = of(bank);
  closed.row = kNoRow;
  closed.is_kept = false;
  closed.hits = 0;
  if (closed.all != 0) file(closed, closed.all);
}

void Waiting::release() {
  for (Bank& bank : banks_) {
    if (!bank.is_kept) continue;
    bank.is_kept = false;
    file(bank, bank.all);
  }
}

// Slots are given out in order; those taken out of it leave gaps.
void Waiting::close_gaps() {
  for (Bank& bank : banks_) bank.all = bank.hits = 0;
  columns_ = activates_ = precharges_ = 0;
  end_ = 0;
  for (uint64_t rest = used_; rest != 0; rest &= rest - 1) {
    entries_[static_cast<size_t>(end_)] = (*this)[std::countr_zero(rest)];
    add(end_++);
  }
  used_ = bit(end_) - 1;
}

}  // namespace trimoe::ndp
