#include "ndp/dram/controller.h"

#include <limits>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

}  // namespace

Controller::Controller(const DramSpec& spec, int ranks, const ControllerOptions& options)
    : device_(spec, ranks), options_(options), reserved_(static_cast<size_t>(device_.banks())) {
  check(options.drain_from >= 1 && options.drain_from <= options.queue,
        "writes drained from 1 to a full queue", options.drain_from, "24 of 32");
  check(options.refresh_apart >= 0 && int64_t{options.refresh_apart} * ranks <= spec.timing.nREFI,
        "refreshes of all ranks within one nREFI", options.refresh_apart, "1000, or 0 for all together");
  for (int rank = 0; rank < ranks; ++rank)
    due_.push_back(spec.timing.nREFI + int64_t{rank} * options.refresh_apart);
}

void Controller::push(const Request& request) {
  const int bank = device_.bank_index(request.place);
  (request.write ? writes_ : reads_).push_back({request, bank, ++pushed_});
  hits_ += device_.open_row(bank) == request.place.row;
}

// After rows were opened or closed.
void Controller::count_hits() {
  hits_ = 0;
  for (const auto* entries : {&reads_, &writes_})
    for (const Entry& entry : *entries) hits_ += entry.request.place.row == device_.open_row(entry.bank);
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them, or no reads.
void Controller::choose_direction() {
  const bool was_writing = writing_;
  const bool enough = std::ssize(writes_) >= options_.drain_from || reads_.empty();
  writing_ = !writes_.empty() && (writing_ || enough);
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
  const bool all_hits = device_.ranks() == 1 && hits_ == std::ssize(reads_) + std::ssize(writes_);
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
    // A row stays open for the request that it was opened for.
    if (command == Command::kPrecharge && reserved_[static_cast<size_t>(entry.bank)] > 0) continue;
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
  if (choice.is_column()) {
    done = complete(choice);
    return true;
  }
  const auto& waiting = queue(writing_);
  const bool is_row = choice.command == Command::kActivate;
  device_.issue(choice.command, choice.bank, now_, is_row ? waiting[choice.index].request.place.row : 0);
  if (is_row) reserved_[static_cast<size_t>(choice.bank)] = waiting[choice.index].order;
  if (choice.command == Command::kPrechargeAll)
    std::fill_n(reserved_.begin() + choice.bank, device_.spec().geometry.banks(), 0);
  if (choice.command == Command::kRefresh)
    due_[static_cast<size_t>(device_.rank_of(choice.bank))] += device_.spec().timing.nREFI;
  else
    count_hits();
  return false;
}

Completion Controller::complete(const Choice& choice) {
  const DramTiming& timing = device_.spec().timing;
  auto& entries = writing_ ? writes_ : reads_;
  const Entry entry = entries[choice.index];
  entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(choice.index));
  device_.issue(choice.command, choice.bank, now_);
  --hits_;
  auto& reserved = reserved_[static_cast<size_t>(choice.bank)];
  if (reserved == entry.order) reserved = 0;
  idle_from_ = now_ + (writing_ ? timing.nCWL : timing.nCL) + timing.nBL;
  return {entry.request, idle_from_};
}

}  // namespace trimoe::ndp
