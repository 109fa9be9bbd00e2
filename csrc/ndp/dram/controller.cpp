#include "ndp/dram/controller.h"

#include <bit>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

// What a command is chosen by, in one number: its clock, then reads and writes before others, then the slot
// of its request, which tells the age.
constexpr int64_t kOther = Waiting::kSlots, kClock = 2 * kOther;

}  // namespace

Controller::Controller(const DramSpec& spec, int ranks, const ControllerOptions& options)
    : device_(spec, ranks),
      options_(options),
      waiting_{Waiting(device_.banks()), Waiting(device_.banks())},
      due_(static_cast<size_t>(ranks), kNever) {
  check(options.queue >= 1 && options.queue <= Waiting::kMaxRequests, "queues of 1 to 63 requests",
        options.queue, "32");
  check(options.drain_from >= 1 && options.drain_from <= options.queue,
        "writes drained from 1 to a full queue", options.drain_from, "24 of 32");
  check(options.refresh_apart >= 0 && int64_t{options.refresh_apart} * ranks <= spec.timing.nREFI,
        "refreshes of all ranks within one nREFI", options.refresh_apart, "1000, or 0 for all together");
  if (options.refresh)
    for (size_t rank = 0; rank < due_.size(); ++rank)
      due_[rank] = spec.timing.nREFI + static_cast<int64_t>(rank) * options.refresh_apart;
  next_due_ = due_.front();
}

void Controller::push(const Request& request) {
  check(has_room(request.write), "room in the queue", waiting_[request.write].size(), "has_room() before");
  check(request.arrival <= now_, "a request that has arrived", request.arrival);
  seen_ = std::max(seen_, request.arrival + 1);
  waiting_[request.write].push(request, device_.bank_index(request.place), seen_);
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them, or no reads.
inline void Controller::choose_direction() {
  const int reads = waiting_[0].size(), writes = waiting_[1].size();
  const bool was_writing = writing_;
  writing_ = writes > 0 && (writing_ || writes >= options_.drain_from || reads == 0);
  // Rows stay open for requests that have their turn.
  if (writing_ != was_writing) waiting_[was_writing].release();
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

// Requests to ranks that are to be refreshed.
uint64_t Controller::draining() const {
  const Waiting& waiting = waiting_[writing_];
  uint64_t found = 0;
  for (uint64_t rest = waiting.columns() | waiting.activates() | waiting.precharges(); rest != 0;
       rest &= rest - 1)
    if (is_draining(waiting[std::countr_zero(rest)].request.place.rank)) found |= rest & (~rest + 1);
  return found;
}

inline Controller::Choice Controller::choose_request() const {
  const Waiting& waiting = waiting_[writing_];
  const uint64_t allowed = now_ < next_due_ ? ~uint64_t{0} : ~draining();
  int64_t best = kNever;
  // At fronts that need one command, which none can have before `floor`.
  const auto look = [&](Command command, int64_t kind, uint64_t fronts, int64_t floor) {
    fronts &= allowed;
    if (fronts == 0 || floor * kClock + kind >= best) return;
    const bool all_seen = seen_ <= floor;
    for (; fronts != 0; fronts &= fronts - 1) {
      const int slot = std::countr_zero(fronts);
      const Waiting::Entry& entry = waiting[slot];
      int64_t at = std::max({floor, device_.earliest_in_rank(command, entry.request.place.rank),
                             device_.earliest_in_bank(command, entry.bank)});
      if (!all_seen) at = std::max(at, entry.seen);
      best = std::min(best, at * kClock + kind + slot);
      if (at == floor) break;  // those behind it are younger
    }
  };
  const auto floor_of = [&](Command command) { return std::max(now_, device_.earliest_anywhere(command)); };
  const Command column = writing_ ? Command::kWrite : Command::kRead;
  const int64_t column_floor = floor_of(column), activate_floor = floor_of(Command::kActivate);
  // In an order that leaves little to look at.
  look(Command::kPrecharge, kOther, waiting.precharges(), floor_of(Command::kPrecharge));
  if (column_floor <= activate_floor) look(column, 0, waiting.columns(), column_floor);
  look(Command::kActivate, kOther, waiting.activates(), activate_floor);
  if (column_floor > activate_floor) look(column, 0, waiting.columns(), column_floor);
  if (best == kNever) return {Command::kCount, 0, kNever, 0};
  const auto slot = static_cast<int>(best % kOther);
  const int bank = waiting[slot].bank;
  const Command other = device_.open_row(bank) == kNoRow ? Command::kActivate : Command::kPrecharge;
  return {(best & kOther) != 0 ? other : column, bank, best / kClock, slot};
}

inline void Controller::issue(const Choice& choice) {
  const auto& [command, bank, at, slot] = choice;
  const int row = command == Command::kActivate ? waiting_[writing_][slot].request.place.row : 0;
  device_.issue(command, bank, at, row);
  if (log_ != nullptr) log_->push_back({at, bank, row, command});
  const int in_rank = device_.spec().geometry.banks();
  switch (command) {
    case Command::kActivate:
      waiting_[writing_].row_opened(bank, row, true);
      waiting_[!writing_].row_opened(bank, row, false);
      break;
    case Command::kPrecharge:
      for (Waiting& waiting : waiting_) waiting.row_closed(bank);
      break;
    case Command::kPrechargeAll:
      for (Waiting& waiting : waiting_)
        for (int closed = bank; closed < bank + in_rank; ++closed) waiting.row_closed(closed);
      break;
    case Command::kRefresh:
      due_[static_cast<size_t>(device_.rank_of(bank))] += device_.spec().timing.nREFI;
      next_due_ = std::ranges::min(due_);
      break;
    default:
      break;
  }
}

bool Controller::step(int64_t limit, Completion& done) {
  choose_direction();
  Choice choice = choose_request();
  if (now_ >= next_due_) {
    const Choice refresh = choose_refresh();
    if (refresh.at <= choice.at) choice = refresh;
  }
  // A refresh that falls due first changes what may be chosen.
  for (const int64_t due : due_)
    if (due > now_) limit = std::min(limit, due);
  check(choice.at < kNever || limit < kNever, "a request that can be served, or a limit", "a stall",
        "a limit");
  if (choice.at >= limit) {
    now_ = std::max(now_, limit);
    return false;
  }
  now_ = choice.at;
  if (choice.command != Command::kRead && choice.command != Command::kWrite) {
    issue(choice);
    return false;
  }
  const DramTiming& timing = device_.spec().timing;
  idle_from_ = now_ + (writing_ ? timing.nCWL : timing.nCL) + timing.nBL;
  issue(choice);
  done = {waiting_[writing_].take(choice.slot), idle_from_};
  return true;
}

}  // namespace trimoe::ndp
