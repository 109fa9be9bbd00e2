#include "ndp/sharing/shared_rank.h"

#include <tuple>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kWritePatience = 8;  // times row_hit_cap: nobody waits for a write
constexpr const char* kSwitchNames[] = {"HOST", "EXCLUSIVE", "CONCURRENT"};

}  // namespace

SharedRank::SharedRank(const DramSpec& spec, const RankPolicy& policy, std::vector<RankCommand>* trace)
    : device_(spec, 1), ledger_(spec.timing), policy_(policy), trace_(trace) {
  check(policy.row_hit_cap >= 1, "a row hit cap from 1 on", policy.row_hit_cap, "16");
  check(policy.postpone >= 0 && policy.postpone < kMaxPostponed,
        "0 to 7 refreshes postponed before one is issued", policy.postpone, "0");
  const auto banks = static_cast<size_t>(device_.banks());
  for (Queues* queues : {&reads_, &writes_, &ndp_}) queues->resize(banks);
  fifo_commands_.resize(banks);
}

bool SharedRank::has_room(const RankRequest& request) const {
  if (mode_ != Mode::kConcurrent) return (request.write ? n_writes_ : n_reads_) < policy_.host_queue;
  const auto bank = static_cast<size_t>(device_.bank_index(request.place));
  return std::ssize(reads_[bank]) + std::ssize(writes_[bank]) < policy_.fifo &&
         fifo_commands_[bank] + request.commands <= policy_.fifo;
}

void SharedRank::push(const RankRequest& request) {
  const auto bank = static_cast<size_t>(device_.bank_index(request.place));
  const bool of_host = request.from == Owner::kHost;
  Queues& queues = !of_host ? ndp_ : request.write ? writes_ : reads_;
  queues[bank].push_back({request, ++pushed_, ndp_bursts_});
  ++(!of_host ? n_ndp_ : request.write ? n_writes_ : n_reads_);
  if (!of_host) return;
  fifo_commands_[bank] += request.commands;
  if (mode_ != Mode::kConcurrent) return;
  deepest_fifo_ = std::max(deepest_fifo_, static_cast<int>(reads_[bank].size() + writes_[bank].size()));
  deepest_commands_ = std::max(deepest_commands_, fifo_commands_[bank]);
}

// Turning the data bus round costs many clocks, so writes wait until there are enough of them, or long
// enough; all go then.
void SharedRank::choose_direction() {
  if (!serves_host() || n_writes_ == 0) {
    writing_ = false;
    return;
  }
  if (writing_) return;
  writing_ = n_writes_ >= policy_.drain_from || (n_reads_ == 0 && !(serves_ndp() && n_ndp_ > 0));
  for (const auto& queue : writes_)
    writing_ = writing_ || (!queue.empty() && overdue(queue.front(), kWritePatience * policy_.row_hit_cap));
}

// Whose request a bank works for: row hits first, those of the NDP only until a host request was passed often
// enough; without hits, the oldest.
std::deque<SharedRank::Entry>* SharedRank::next_of(int bank) {
  const auto b = static_cast<size_t>(bank);
  auto* host = serves_host() ? &(writing_ ? writes_ : reads_)[b] : nullptr;
  if (host != nullptr && host->empty()) host = nullptr;
  auto* ndp = serves_ndp() && !writing_ && !ndp_[b].empty() ? &ndp_[b] : nullptr;
  if (host == nullptr || ndp == nullptr) return host != nullptr ? host : ndp;
  const Entry &theirs = host->front(), &ours = ndp->front();
  if (theirs.request.arrival >= now_) return ndp;  // still on its way
  if (overdue(theirs, policy_.row_hit_cap)) return host;
  const int row = device_.open_row(bank);
  if (theirs.request.place.row == row) return host;
  if (ours.request.place.row == row) return ndp;
  return theirs.order < ours.order ? host : ndp;
}

// The earliest command; of several, one that moves data; of these, the host's.
bool SharedRank::Choice::before(const Choice& other) const {
  const auto key = [](const Choice& one) {
    const Entry& entry = one.queue->front();
    return std::tuple(one.at, !one.is_column(), entry.request.from == Owner::kNdp, entry.order);
  };
  return at != other.at ? at < other.at : key(*this) < key(other);
}

SharedRank::Choice SharedRank::choose() {
  Choice best{kNever};
  for (int bank = 0; bank < device_.banks(); ++bank) {
    auto* queue = next_of(bank);
    if (queue == nullptr) continue;
    const RankRequest& request = queue->front().request;
    const int row = device_.open_row(bank);
    const Command column = request.write ? Command::kWrite : Command::kRead;
    const Command closed = row == kNoRow ? Command::kActivate : Command::kPrecharge;
    const Command command = row == request.place.row ? column : closed;
    const int64_t at = std::max({now_, request.arrival + 1, device_.earliest(command, bank)});
    const Choice choice{at, command, bank, queue};
    if (best.queue == nullptr || choice.before(best)) best = choice;
  }
  return best;
}

SharedRank::Choice SharedRank::choose_refresh() const {
  const Command command = device_.all_closed(0) ? Command::kRefresh : Command::kPrechargeAll;
  return {std::max(now_, device_.earliest(command, 0)), command};
}

void SharedRank::issue(Command command, int bank, int row, Owner from, int64_t tag) {
  device_.issue(command, bank, now_, row);
  if (trace_ != nullptr) trace_->push_back({now_, name_of(command), bank, row, from, tag});
}

Served SharedRank::serve(const Choice& choice) {
  const RankRequest request = choice.queue->front().request;
  choice.queue->pop_front();
  const bool of_host = request.from == Owner::kHost;
  --(!of_host ? n_ndp_ : request.write ? n_writes_ : n_reads_);
  if (of_host) fifo_commands_[static_cast<size_t>(choice.bank)] -= request.commands;
  ndp_bursts_ += !of_host;
  issue(choice.command, choice.bank, request.place.row, request.from, request.tag);
  const DramTiming& timing = device_.spec().timing;
  return {request, now_, now_ + (request.write ? timing.nCWL : timing.nCL) + timing.nBL};
}

bool SharedRank::step(int64_t limit, Served& served) {
  // Once one is issued, all that are owed are: the rows are closed.
  const int64_t debt = ledger_.debt(now_);
  refreshing_ = debt > (refreshing_ ? 0 : policy_.postpone);
  if (!refreshing_)
    limit = std::min(limit, ledger_.next_due() + int64_t{policy_.postpone} * device_.spec().timing.nREFI);
  choose_direction();
  const Choice choice = refreshing_ ? choose_refresh() : choose();
  if (choice.at >= limit) {
    now_ = std::max(now_, limit);
    return false;
  }
  now_ = choice.at;
  if (choice.is_column()) {
    served = serve(choice);
    return true;
  }
  if (choice.queue == nullptr) {
    issue(choice.command, choice.bank, kNoRow, ledger_.owner(), 0);
    if (choice.command == Command::kRefresh) ledger_.issue(ledger_.owner(), now_);
  } else {
    const RankRequest& request = choice.queue->front().request;
    const bool opens = choice.command == Command::kActivate;
    issue(choice.command, choice.bank, opens ? request.place.row : kNoRow, request.from, 0);
  }
  return false;
}

void SharedRank::switch_to(Mode mode) {
  check(mode_ != Mode::kConcurrent || n_reads_ + n_writes_ == 0, "offloaded requests served before a switch",
        n_reads_ + n_writes_, "step() until none waits");
  const DramTiming& timing = device_.spec().timing;
  now_ = std::max(now_, device_.earliest(Command::kPrechargeAll, 0));
  issue(Command::kPrechargeAll, 0, kNoRow, ledger_.owner(), 0);
  now_ += timing.nRP + command_clocks(timing);
  ledger_.transfer(owner_in(mode), now_);
  if (trace_ != nullptr)
    trace_->push_back({now_, kSwitchNames[static_cast<size_t>(mode)], 0, kNoRow, ledger_.owner(), 0});
  mode_ = mode;
  writing_ = refreshing_ = false;
  ++switches_;
}

}  // namespace trimoe::ndp
