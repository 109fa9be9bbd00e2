#include "ndp/sharing/refresh.h"

#include <algorithm>

#include "common/error.h"

namespace trimoe::ndp {

RefreshLedger::RefreshLedger(const DramTiming& timing, int64_t first_due)
    : interval_(timing.nREFI), first_due_(first_due > 0 ? first_due : timing.nREFI) {
  check(first_due >= 0, "a first refresh at a clock from 0 on", first_due, "0 for one nREFI");
}

void RefreshLedger::advance(int64_t clock) {
  check(clock >= clock_, "clocks in order", clock, "the clock of the last command or a later one");
  clock_ = clock;
  largest_debt_ = std::max(largest_debt_, debt(clock));
}

void RefreshLedger::issue(Owner by, int64_t clock) {
  check(by == owner_, "a refresh by the owner of the rank", name_of(by), "transfer() first");
  check(debt(clock) > 0, "a refresh that is due", clock, "the clock of next_due() or a later one");
  advance(clock);
  ++issued_[static_cast<size_t>(by)];
}

void RefreshLedger::transfer(Owner to, int64_t clock) {
  if (to == owner_) return;
  check(debt(clock) <= kMaxPostponed, "a rank at most 8 refreshes behind", debt(clock),
        "issue() by its owner first");
  advance(clock);
  owner_ = to;
  ++transfers_;
}

}  // namespace trimoe::ndp
