#include "ndp/dram/controller.h"

#include <bit>
#include <limits>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// What a command is chosen by, in one number: its clock, then reads and writes before others, then the slot of
// its request, which tells the age.
constexpr int64_t kSlots = 64;
constexpr int64_t kOther = kSlots, kClock = 2 * kSlots;

}  // namespace

Controller::Controller(const DramSpec& spec, int ranks, const ControllerOptions& options)
    : device_(spec, ranks),
      options_(options),
      waiting_{Waiting(device_.banks()), Waiting(device_.banks())},
      next_due_(options.refresh ? spec.timing.nREFI : kNever) {
  check(options.queue >= 1 && options.queue <= Waiting::kMaxRequests, "queues of 1 to 63 requests",
        options.queue, "32");
  check(options.drain_from >= 1 && options.drain_from <= options.queue,
        "writes drained from 1 to a full queue", options.drain_from, "24 of 32");
  check(options.refresh_apart >= 0 && int64_t{options.refresh_apart} * ranks <= spec.timing.nREFI,
        "refreshes of all ranks within one nREFI", options.refresh_apart, "1000, or 0 for all together");
  for (int rank = 0; rank < ranks; ++rank)
    due_.push_back(spec.timing.nREFI + int64_t{rank} * options.refresh_apart);
}

void Controller::push(const Request& request) {
  check(has_room(request.write), "room in the queue", waiting_[request.write].size(), "has_room() before");
  check(request.arrival <= now_, "a request that has arrived", request.arrival, "the clock that it is");
  seen_ = std::max(seen_, request.arrival + 1);
  waiting_[request.write].push(request, device_.bank_index(request.place), seen_);
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them, or no reads.
void Controller::choose_direction() {
  const int reads = waiting_[0].size(), writes = waiting_[1].size();
  const bool was_writing = writing_;
  writing_ = writes > 0 && (writing_ || writes >= options_.drain_from || reads == 0);
  if (writing_ == was_writing) return;
  waiting_[was_writing].release();
}

Controller::Choice Controller::choose_refresh() const {
  Choice best;
  best.at = kNever;
  for (int rank = 0; rank < device_.ranks(); ++rank) {
    if (!is_draining(rank)) continue;
    const int bank = rank * device_.spec().geometry.banks();
    const Command command = device_.all_closed(rank) ? Command::kRefresh : Command::kPrechargeAll;
    const int64_t at = std::max(now_, device_.earliest(command, bank));
    if (at < best.at) best = {command, bank, at, 0};
  }
  return best;
}

Controller::Choice Controller::choose_request() const {
  const Waiting& waiting = waiting_[writing_];
  const Command column = writing_ ? Command::kWrite : Command::kRead;
  uint64_t left_out = 0;
  if (now_ >= next_due_)
    for (uint64_t rest = waiting.fronts(); rest != 0; rest &= rest - 1)
      if (is_draining(waiting[std::countr_zero(rest)].request.place.rank)) left_out |= rest & (~rest + 1);
  int64_t best = kNever;
  const auto look = [&](uint64_t slots, Command command, int64_t floor, int64_t kind) {
    if (slots == 0 || floor * kClock + kind >= best) return;
    const bool is_late = seen_ > floor;
    for (; slots != 0; slots &= slots - 1) {
      const int slot = __builtin_ctzll(slots);
      const Waiting::Entry& entry = waiting[slot];
      int64_t at = std::max({floor, device_.earliest_in_rank_(command, entry.request.place.rank),
                             device_.earliest_in_bank(command, entry.bank)});
      if (is_late) at = std::max(at, entry.seen);
      best = std::min(best, at * kClock + kind + slot);
      if (at == floor) break;
    }
  };
  const auto floor_of = [&](Command command) { return std::max(now_, device_.earliest_in_any_rank(command)); };
  const int64_t columns_from = floor_of(column), activates_from = floor_of(Command::kActivate);
  look(waiting.precharges() & ~left_out, Command::kPrecharge, floor_of(Command::kPrecharge), kOther);
  if (columns_from <= activates_from) look(waiting.columns() & ~left_out, column, columns_from, 0);
  look(waiting.activates() & ~left_out, Command::kActivate, activates_from, kOther);
  if (columns_from > activates_from) look(waiting.columns() & ~left_out, column, columns_from, 0);
  if (best == kNever) return {Command::kCount, 0, kNever, 0};
  const auto slot = static_cast<int>(best % kSlots);
  const int bank = waiting[slot].bank;
  const Command other = device_.open_row(bank) == kNoRow ? Command::kActivate : Command::kPrecharge;
  return {best & kOther ? other : column, bank, best / kClock, slot};
}

bool Controller::step(int64_t limit, Completion& done) {
  choose_direction();
  Choice choice = choose_request();
  // A refresh that falls due first changes what may be chosen.
  if (now_ < next_due_) {
    limit = std::min(limit, next_due_);
  } else {
    const Choice refresh = choose_refresh();
    if (refresh.at <= choice.at) choice = refresh;
    for (const int64_t due : due_)
      if (due > now_) limit = std::min(limit, due);
  }
  check(choice.at < kNever || limit < kNever, "a request that can be served, or a limit", "a stall",
        "a limit");
  if (choice.at >= limit) {
    now_ = std::max(now_, limit);
    return false;
  }
  now_ = choice.at;
  const bool is_row = choice.command == Command::kActivate;
  const int row = is_row ? waiting_[writing_][choice.slot].request.place.row : 0;
  device_.issue(choice.command, choice.bank, now_, row);
  if (log_ != nullptr) log_->push_back({choice.command, choice.bank, now_, row});
  const int rank = device_.rank_of(choice.bank);
  switch (choice.command) {
    case Command::kActivate:
      waiting_[writing_].row_opened(choice.bank, row, true);
      waiting_[!writing_].row_opened(choice.bank, row, false);
      return false;
    case Command::kPrecharge:
      for (Waiting& waiting : waiting_) waiting.row_closed(choice.bank);
      return false;
    case Command::kPrechargeAll:
      for (int bank = choice.bank; bank < choice.bank + device_.spec().geometry.banks(); ++bank)
        for (Waiting& waiting : waiting_) waiting.row_closed(bank);
      return false;
    case Command::kRefresh:
      due_[static_cast<size_t>(rank)] += device_.spec().timing.nREFI;
      next_due_ = std::ranges::min(due_);
      return false;
    default:
      done = complete(choice);
      return true;
  }
}

Completion Controller::complete(const Choice& choice) {
  const DramTiming& timing = device_.spec().timing;
  idle_from_ = now_ + (writing_ ? timing.nCWL : timing.nCL) + timing.nBL;
  return {waiting_[writing_].take(choice.slot), idle_from_};
}

}  // namespace trimoe::ndp
