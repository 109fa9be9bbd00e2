#include "ndp/dram/device.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace trimoe::ndp {

Device::Device(const DramSpec& spec, int ranks) : spec_(spec), ranks_(ranks) {
  check(ranks >= 1 && ranks <= kMaxRanks, "1 to 8 ranks on a sub-channel", ranks, "1, 2 or 4");
  for (const Rule& rule : rules_of(spec.timing))
    delays_[static_cast<size_t>(rule.scope)][static_cast<size_t>(rule.before)].push_back(
        {static_cast<size_t>(rule.after), rule.clocks});
  const auto n_ranks = static_cast<size_t>(ranks);
  const auto groups = n_ranks * static_cast<size_t>(spec.geometry.bank_groups);
  const auto n_banks = groups * static_cast<size_t>(spec.geometry.banks_per_group);
  for (int bank = 0; bank < static_cast<int>(n_banks); ++bank) {
    group_of_.push_back(bank / spec.geometry.banks_per_group);
    rank_of_.push_back(bank / spec.geometry.banks());
  }
  open_.assign(n_banks, kNoRow);
  open_in_rank_.assign(n_ranks, 0);
  earliest_.resize(n_banks + n_ranks);
  activates_.resize(n_ranks);
  next_activate_.resize(n_ranks);
}

void Device::refuse(Command command, int bank, int64_t at) const {
  const int64_t first = earliest(command, bank);
  if (at < first)
    throw Error("a command no earlier than the timing rules allow",
                std::string(name_of(command)) + " at clock " + std::to_string(at),
                "clock " + std::to_string(first));
  if (command == Command::kActivate)
    throw Error("a closed row to activate another", std::to_string(open_row(bank)), "PRE before it");
  if (command == Command::kRefresh)
    throw Error("a rank with all rows closed to refresh", "open rows", "PREA before it");
  throw Error("an open row to read or write", "none", "ACT before it");
}

inline void Device::set_rows(Command command, int bank, int row) {
  int& open = open_[static_cast<size_t>(bank)];
  int& open_in_rank = open_in_rank_[static_cast<size_t>(rank_of(bank))];
  if (command == Command::kActivate) {
    open = row;
    ++open_in_rank;
  } else if (command == Command::kPrecharge) {
    open_in_rank -= open != kNoRow;
    open = kNoRow;
  } else if (command == Command::kPrechargeAll) {
    const int in_rank = spec_.geometry.banks();
    std::fill_n(open_.begin() + rank_of(bank) * in_rank, in_rank, kNoRow);
    open_in_rank = 0;
  }
}

inline void Device::raise(Command command, int bank, int64_t at) {
  const int rank = rank_of(bank), in_group = spec_.geometry.banks_per_group;
  const auto delays = [&](Scope scope) -> const std::vector<Delay>& {
    return delays_[static_cast<size_t>(scope)][static_cast<size_t>(command)];
  };
  const auto apply = [at](Earliest& earliest, const Delay& delay) {
    earliest[delay.after] = std::max(earliest[delay.after], at + delay.clocks);
  };
  for (const Delay& delay : delays(Scope::kBank)) apply(earliest_[static_cast<size_t>(bank)], delay);
  Earliest* const group = earliest_.data() + group_of(bank) * in_group;
  for (const Delay& delay : delays(Scope::kGroup))
    for (int place = 0; place < in_group; ++place) apply(group[place], delay);
  for (const Delay& delay : delays(Scope::kRank)) apply(of_rank(rank), delay);
  for (const Delay& delay : delays(Scope::kOtherRank))
    for (int other = 0; other < ranks_; ++other)
      if (other != rank) apply(of_rank(other), delay);
  if (command == Command::kActivate) {
    auto& window = activates_[static_cast<size_t>(rank)];
    auto& oldest = next_activate_[static_cast<size_t>(rank)];
    window[oldest] = at + spec_.timing.nFAW;
    oldest = (oldest + 1) % 4;
    int64_t& next = of_rank(rank)[static_cast<size_t>(command)];
    next = std::max(next, window[oldest]);
  }
  bus_free_ = std::max(bus_free_, at + bus_clocks(command));
}

void Device::issue(Command command, int bank, int64_t at, int row) {
  if (at < earliest(command, bank) || !fits(command, bank)) [[unlikely]]
    refuse(command, bank, at);
  set_rows(command, bank, row);
  raise(command, bank, at);
  ++count_[static_cast<size_t>(command)];
}

}  // namespace trimoe::ndp
