#include "ndp/controller.h"

#include <limits>
#include <utility>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

}  // namespace

Controller::Controller(const DramSpec& spec, int ranks, const ControllerOptions& options)
    : device_(spec, ranks),
      options_(options),
      hits_(static_cast<size_t>(device_.banks())),
      reserved_(hits_.size()) {
  check(options.queue >= 1 && options.drain_to < options.drain_from && options.drain_from <= options.queue,
        "a queue, and writes drained from below its size to less", options.drain_from, "32, 24 and 0");
  check(options.refresh_apart >= 0 && int64_t{options.refresh_apart} * ranks <= spec.timing.nREFI,
        "refreshes of all ranks within one nREFI", options.refresh_apart, "2000, or 0 for all together");
  for (int rank = 0; rank < ranks; ++rank)
    due_.push_back(spec.timing.nREFI + int64_t{rank} * options.refresh_apart);
}

void Controller::push(const Request& request) {
  auto& entries = request.write ? writes_ : reads_;
  const int bank = device_.bank_index(request.place);
  entries.push_back({request, bank});
  if (device_.open_row(bank) == request.place.row) set_hits(bank, hits_[static_cast<size_t>(bank)] + 1);
}

void Controller::set_hits(int bank, int hits) {
  waiting_hits_ += hits - std::exchange(hits_[static_cast<size_t>(bank)], hits);
}

void Controller::count_hits(int bank) {
  int hits = 0;
  for (const auto* entries : {&reads_, &writes_})
    for (const Entry& entry : *entries)
      hits += entry.bank == bank && entry.request.place.row == device_.open_row(bank);
  set_hits(bank, hits);
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them.
void Controller::choose_direction() {
  const int waiting = static_cast<int>(writes_.size());
  if (writing_)
    writing_ = waiting > options_.drain_to && waiting > 0;
  else
    writing_ = waiting >= options_.drain_from || (reads_.empty() && waiting > 0);
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
  const Command column = writing_ ? Command::kWrite : Command::kRead;
  // What holds for a whole rank, once for all entries.
  int64_t floor[kMaxRanks][kCommands];
  for (int rank = 0; rank < device_.ranks(); ++rank)
    for (const Command command : {column, Command::kActivate, Command::kPrecharge})
      floor[rank][static_cast<int>(command)] =
          is_draining(rank) ? kNever : std::max(now_, device_.earliest_in_rank(command, rank));
  // With one rank all of whose requests only wait for the data bus, the first that may have it is the best.
  const bool all_hits = device_.ranks() == 1 && waiting_hits_ == std::ssize(reads_) + std::ssize(writes_);
  Choice best;
  best.at = kNever;
  const auto& entries = queue(writing_);
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    const int row = device_.open_row(entry.bank);
    const Command closed = row == kNoRow ? Command::kActivate : Command::kPrecharge;
    const Command command = row == entry.request.place.row ? column : closed;
    const int64_t rank_at = floor[entry.request.place.rank][static_cast<int>(command)];
    const int64_t at =
        std::max({rank_at, entry.request.arrival + 1, device_.earliest_in_bank(command, entry.bank)});
    const Choice choice{command, entry.bank, at, i};
    if (!choice.before(best)) continue;
    // A row stays open for the request that it was opened for, while such requests have their turn.
    if (command == Command::kPrecharge && reserved_[static_cast<size_t>(entry.bank)] == reservation())
      continue;
    best = choice;
    if (best.is_column() && (best.at == now_ || (all_hits && best.at <= rank_at))) break;
  }
  return best;
}

bool Controller::step(int64_t limit, Completion& done) {
  choose_direction();
  Choice choice = choose_request();
  if (options_.refresh) {
    const Choice refresh = choose_refresh();
    if (refresh.at <= choice.at) choice = refresh;
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
  const auto rank = static_cast<size_t>(device_.rank_of(choice.bank));
  const DramTiming& timing = device_.spec().timing;
  if (choice.command == Command::kRefresh) due_[rank] += timing.nREFI;
  if (choice.command == Command::kRefresh || choice.command == Command::kPrechargeAll) {
    device_.issue(choice.command, choice.bank, choice.at);
    if (choice.command == Command::kPrechargeAll) {
      const int banks = device_.spec().geometry.banks();
      for (int bank = choice.bank; bank < choice.bank + banks; ++bank) {
        set_hits(bank, 0);
        reserved_[static_cast<size_t>(bank)] = Reserved::kNot;
      }
    }
    return false;
  }
  auto& entries = writing_ ? writes_ : reads_;
  Entry& waiting = entries[choice.index];
  const Entry entry = waiting;
  device_.issue(choice.command, choice.bank, choice.at, entry.request.place.row);
  if (choice.command == Command::kActivate) {
    count_hits(choice.bank);
    waiting.opened = true;
    reserved_[static_cast<size_t>(choice.bank)] = reservation();
  }
  if (choice.command == Command::kPrecharge) set_hits(choice.bank, 0);
  if (!choice.is_column()) return false;
  set_hits(choice.bank, hits_[static_cast<size_t>(choice.bank)] - 1);
  if (entry.opened) reserved_[static_cast<size_t>(choice.bank)] = Reserved::kNot;
  entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(choice.index));
  idle_from_ = choice.at + (writing_ ? timing.nCWL : timing.nCL) + timing.nBL;
  done = {entry.request, idle_from_};
  return true;
}

}  // namespace trimoe::ndp
