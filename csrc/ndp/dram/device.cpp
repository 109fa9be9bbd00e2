#include "ndp/dram/device.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace trimoe::ndp {
Device::Device(const DramSpec& spec, int ranks) : spec_(spec), ranks_(ranks) {
  check(ranks >= 1 && ranks <= kMaxRanks, "1 to 8 ranks on a sub-channel", ranks, "1, 2 or 4");
  for (const Rule& rule : rules_of(spec.timing))
    delays_[static_cast<size_t>(rule.scope)][static_cast<size_t>(rule.before)].push_back(
        {static_cast<int64_t>(rule.after), rule.clocks});
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
  check(at >= first, "a command no earlier than the timing rules allow",
        [&] { return std::string(name_of(command)) + " at clock " + std::to_string(at); },
        ("clock " + std::to_string(first)).c_str());
  if (command == Command::kActivate)
    throw Error("a closed row to activate another", std::to_string(open_row(bank)), "PRE before it");
  if (command == Command::kRefresh)
    throw Error("a rank with all rows closed to refresh", "open rows", "PREA before it");
  throw Error("an open row to read or write", "none", "ACT before it");
}

void Device::issue(Command command, int bank, int64_t at, int row) {
  if (at < earliest(command, bank) || !fits(command, bank)) [[unlikely]]
    refuse(command, bank, at);
  const int rank = rank_of(bank), banks_in_rank = spec_.geometry.banks();
  auto& open = open_[static_cast<size_t>(bank)];
  auto& open_in_rank = open_in_rank_[static_cast<size_t>(rank)];
  switch (command) {
    case Command::kActivate: {
      open = row;
      ++open_in_rank;
      auto& next = next_activate_[static_cast<size_t>(rank)];
      auto& window = activates_[static_cast<size_t>(rank)];
      window[next] = at + spec_.timing.nFAW;
      next = (next + 1) % 4;
      auto& again = rank_at(rank)[static_cast<size_t>(Command::kActivate)];
      again = std::max(again, window[next]);
      break;
    }
    case Command::kPrecharge:
      open_in_rank -= open != kNoRow;
      open = kNoRow;
      break;
    case Command::kPrechargeAll:
      std::fill_n(open_.begin() + rank * banks_in_rank, banks_in_rank, kNoRow);
      open_in_rank = 0;
      break;
    default:
      break;
  }
  const auto delays = [&](Scope scope) -> const std::vector<Delay>& {
    return delays_[static_cast<size_t>(scope)][static_cast<size_t>(command)];
  };
  const auto raise = [at](Earliest& earliest, const Delay& delay) {
    int64_t& entry = earliest[static_cast<size_t>(delay.after)];
    entry = std::max(entry, at + delay.clocks);
  };
  Earliest* const in_group = &earliest_[static_cast<size_t>(group_of(bank) * spec_.geometry.banks_per_group)];
  for (const Delay& delay : delays(Scope::kBank)) raise(earliest_[static_cast<size_t>(bank)], delay);
  for (const Delay& delay : delays(Scope::kGroup))
    for (int place = 0; place < spec_.geometry.banks_per_group; ++place) raise(in_group[place], delay);
  for (const Delay& delay : delays(Scope::kRank)) raise(rank_at(rank), delay);
  for (const Delay& delay : delays(Scope::kOtherRank))
    for (int other = 0; other < ranks_; ++other)
      if (other != rank) raise(rank_at(other), delay);
  bus_free_ = std::max(bus_free_, at + bus_clocks(command));
  ++count_[static_cast<size_t>(command)];
}

}  // namespace trimoe::ndp
