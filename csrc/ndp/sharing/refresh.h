// Who refreshes a rank, and how far behind it is: exactly one owner at any time, whatever is handed over.
#pragma once

#include <array>

#include "ndp/dram/spec.h"

namespace trimoe::ndp {

enum class Owner : uint8_t { kHost, kNdp };
inline constexpr int kOwners = 2;

constexpr const char* name_of(Owner owner) { return owner == Owner::kHost ? "host" : "ndp"; }

// JESD79-5 lets so many refreshes be postponed.
inline constexpr int64_t kMaxPostponed = 8;

// The refreshes of one rank of one sub-channel. One falls due every nREFI; what is due and was not issued is
// the debt, which stays with the rank when the owner changes. Clocks never go back.
class RefreshLedger {
 public:
  // first_due: clock of the first one, for ranks that are not refreshed together; 0: after one nREFI.
  explicit RefreshLedger(const DramTiming& timing, int64_t first_due = 0);

  Owner owner() const { return owner_; }
  int64_t due(int64_t clock) const { return clock < first_due_ ? 0 : 1 + (clock - first_due_) / interval_; }
  int64_t debt(int64_t clock) const { return due(clock) - issued_in_all(); }
  int64_t next_due() const { return first_due_ + issued_in_all() * interval_; }  // of the oldest not issued

  // Throws Error unless `by` is the owner and one is due: none is issued ahead.
  void issue(Owner by, int64_t clock);

  // Hands the rank over, debt included; nothing happens where `to` has it. Throws Error when the debt is
  // above kMaxPostponed: the owner must catch up first.
  void transfer(Owner to, int64_t clock);

  int64_t issued(Owner owner) const { return issued_[static_cast<size_t>(owner)]; }
  int64_t transfers() const { return transfers_; }
  int64_t largest_debt() const { return largest_debt_; }  // seen by issue() and transfer()

 private:
  int64_t issued_in_all() const { return issued_[0] + issued_[1]; }
  void advance(int64_t clock);

  int64_t interval_, first_due_;
  std::array<int64_t, kOwners> issued_{};
  int64_t clock_ = 0, transfers_ = 0, largest_debt_ = 0;
  Owner owner_ = Owner::kHost;
};

}  // namespace trimoe::ndp
