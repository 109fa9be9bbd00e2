#include "ndp/dram/controller.h"

#include <bit>
#include <limits>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// One number to compare commands by: first the clock, then reads and writes before others, then the age.
constexpr int kClockShift = 41;
constexpr int64_t kNoColumn = int64_t{1} << 40;

}  // namespace

Controller::Controller(const DramSpec& spec, int ranks, const ControllerOptions& options)
    : device_(spec, ranks),
      options_(options),
      waiting_{{device_, options.queue}, {device_, options.queue}},
      reserved_(static_cast<size_t>(ranks)),
      next_due_(spec.timing.nREFI) {
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
  const int bank = device_.bank_index(request.place);
  seen_ = std::max(seen_, request.arrival + 1);
  waiting_[request.write].push({request, ++pushed_, seen_, 0}, bank, device_.open_row(bank));
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them, or no reads.
void Controller::choose_direction() {
  const int reads = waiting_[0].size(), writes = waiting_[1].size();
  const bool was_writing = writing_;
  writing_ = writes > 0 && (writing_ || writes >= options_.drain_from || reads == 0);
  // Rows stay open for requests that have their turn.
  if (writing_ != was_writing) std::ranges::fill(reserved_, 0);
}

Controller::Choice Controller::choose_refresh() const {
  Choice best;
  best.at = kNever;
  for (int rank = 0; rank < device_.ranks(); ++rank) {
    if (!is_draining(rank)) continue;
    const int bank = rank * device_.spec().geometry.banks();
    const Command command = device_.all_closed(rank) ? Command::kRefresh : Command::kPrechargeAll;
    const int64_t at = std::max(now_, device_.earliest(command, bank));
    if (at < best.at) best = {command, bank, at};
  }
  return best;
}

Controller::Choice Controller::choose_request() const {
  const Command column = writing_ ? Command::kWrite : Command::kRead;
  const Waiting& waiting = waiting_[writing_];
  Choice best;
  int64_t best_key = kNever;
  const auto look = [&](Command command, int rank, uint64_t banks) {
    const int64_t floor = std::max<int64_t>(0, device_.earliest_in_rank(command, rank) - now_);
    const bool is_column = command == column;
    const int64_t kind = is_column ? 0 : kNoColumn;
    if (((floor << kClockShift) | kind) > best_key) return;
    const int first = rank * device_.spec().geometry.banks();
    for (; banks != 0; banks &= banks - 1) {
      const int bank = first + std::countr_zero(banks);
      const Waiting::Entry& entry = is_column ? waiting.hit(bank) : waiting.other(bank);
      const int64_t in_bank = std::max(device_.earliest_in_bank(command, bank), entry.seen) - now_;
      const int64_t key = (std::max(floor, in_bank) << kClockShift) | kind | entry.order;
      if (key >= best_key) continue;
      best_key = key;
      best = {command, bank, 0};
    }
  };
  for (int rank = 0; rank < device_.ranks(); ++rank) {
    if (is_draining(rank)) continue;
    const uint64_t others = waiting.others(rank), open = device_.open_banks(rank);
    look(column, rank, waiting.hits(rank));
    look(Command::kActivate, rank, others & ~open);
    // A row stays open for the request that it was opened for.
    look(Command::kPrecharge, rank, others & open & ~reserved_[static_cast<size_t>(rank)]);
  }
  best.at = best_key == kNever ? kNever : now_ + (best_key >> kClockShift);
  return best;
}

bool Controller::step(int64_t limit, Completion& done) {
  choose_direction();
  Choice choice = choose_request();
  if (options_.refresh) {
    if (now_ >= next_due_) {
      const Choice refresh = choose_refresh();
      if (refresh.at <= choice.at) choice = refresh;
    }
    // A refresh that falls due first changes what may be chosen.
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
  const bool is_column = choice.command == Command::kRead || choice.command == Command::kWrite;
  const int row =
      choice.command == Command::kActivate ? waiting_[writing_].other(choice.bank).request.place.row : 0;
  device_.issue(choice.command, choice.bank, now_, row);
  if (log_ != nullptr) log_->push_back({choice.command, choice.bank, now_, row});
  if (is_column)
    done = complete(choice.bank);
  else
    rows_changed(choice);
  return is_column;
}

void Controller::rows_changed(const Choice& choice) {
  const auto rank = static_cast<size_t>(device_.rank_of(choice.bank));
  if (choice.command == Command::kRefresh) {
    due_[rank] += device_.spec().timing.nREFI;
    next_due_ = std::ranges::min(due_);
    return;
  }
  const bool is_all = choice.command == Command::kPrechargeAll;
  if (is_all) reserved_[rank] = 0;
  if (choice.command == Command::kActivate) reserved_[rank] |= device_.bit_of(choice.bank);
  const int end = choice.bank + (is_all ? device_.spec().geometry.banks() : 1);
  for (int bank = choice.bank; bank < end; ++bank)
    for (Waiting& waiting : waiting_) waiting.row_changed(bank, device_.open_row(bank));
}

Completion Controller::complete(int bank) {
  const DramTiming& timing = device_.spec().timing;
  // The row was opened for the oldest of the bank, which is served first.
  reserved_[static_cast<size_t>(device_.rank_of(bank))] &= ~device_.bit_of(bank);
  idle_from_ = now_ + (writing_ ? timing.nCWL : timing.nCL) + timing.nBL;
  return {waiting_[writing_].take_hit(bank, device_.open_row(bank)), idle_from_};
}

}  // namespace trimoe::ndp
