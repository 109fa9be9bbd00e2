#include "ndp/dram/waiting.h"

namespace trimoe::ndp {

Waiting::Waiting(const Device& device, int room)
    : entries_(static_cast<size_t>(room)),
      hits_(static_cast<size_t>(device.ranks())),
      others_(static_cast<size_t>(device.ranks())) {
  for (int slot = 0; slot < room; ++slot) entry(slot).next = slot + 1;
  for (int bank = 0; bank < device.banks(); ++bank)
    banks_.push_back({.rank = static_cast<size_t>(device.rank_of(bank)), .bit = device.bit_of(bank)});
}

void Waiting::push(const Entry& added, int bank, int open_row) {
  const int slot = free_;
  free_ = entry(slot).next;
  ++size_;
  entry(slot) = added;
  entry(slot).next = kNone;
  Bank& list = banks_[static_cast<size_t>(bank)];
  (list.last == kNone ? list.first : entry(list.last).next) = slot;
  list.last = slot;
  int& front = entry(slot).request.place.row == open_row ? list.hit : list.other;
  if (front != kNone) return;
  front = slot;
  mark(list);
}

Request Waiting::take_hit(int bank, int open_row) {
  Bank& list = banks_[static_cast<size_t>(bank)];
  const int slot = list.hit;
  int before = kNone;
  for (int older = list.first; older != slot; older = entry(older).next) before = older;
  const int next = entry(slot).next;
  (before == kNone ? list.first : entry(before).next) = next;
  if (next == kNone) list.last = before;
  for (list.hit = next; list.hit != kNone && entry(list.hit).request.place.row != open_row;)
    list.hit = entry(list.hit).next;
  mark(list);
  entry(slot).next = free_;
  free_ = slot;
  --size_;
  return entry(slot).request;
}

void Waiting::row_changed(int bank, int open_row) {
  Bank& list = banks_[static_cast<size_t>(bank)];
  list.hit = list.other = kNone;
  for (int slot = list.first; slot != kNone && (list.hit == kNone || list.other == kNone);
       slot = entry(slot).next) {
    int& front = entry(slot).request.place.row == open_row ? list.hit : list.other;
    if (front == kNone) front = slot;
  }
  mark(list);
}

void Waiting::mark(const Bank& bank) {
  const auto set = [&](uint64_t& banks, int front) {
    banks = front != kNone ? banks | bank.bit : banks & ~bank.bit;
  };
  set(hits_[bank.rank], bank.hit);
  set(others_[bank.rank], bank.other);
}

}  // namespace trimoe::ndp
