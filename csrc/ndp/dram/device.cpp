#include "ndp/dram/device.h"

#include <algorithm>
#include <limits>
#include <string>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kNoRule = std::numeric_limits<int64_t>::min() / 2;  // clocks that raise nothing

}  // namespace

Device::Device(const DramSpec& spec, int ranks) : spec_(spec), ranks_(ranks) {
  check(ranks >= 1 && ranks <= kMaxRanks, "1 to 8 ranks on a sub-channel", ranks, "1, 2 or 4");
  check(spec.geometry.banks() <= 64, "at most 64 banks in a rank", spec.geometry.banks(), "32");
  for (auto& scope : delays_)
    for (Earliest& delays : scope) delays.fill(kNoRule);
  for (const Rule& rule : rules_of(spec.timing))
    delays_[static_cast<size_t>(rule.scope)][static_cast<size_t>(rule.before)]
           [static_cast<size_t>(rule.after)] = rule.clocks;
  const auto n_ranks = static_cast<size_t>(ranks);
  const auto groups = n_ranks * static_cast<size_t>(spec.geometry.bank_groups);
  const auto n_banks = groups * static_cast<size_t>(spec.geometry.banks_per_group);
  for (int bank = 0; bank < static_cast<int>(n_banks); ++bank) {
    group_of_.push_back(bank / spec.geometry.banks_per_group);
    rank_of_.push_back(bank / spec.geometry.banks());
  }
  open_.assign(n_banks, kNoRow);
  open_banks_.assign(n_ranks, 0);
  bank_.resize(n_banks);
  group_.resize(groups);
  rank_.resize(n_ranks);
  activates_.resize(n_ranks);
  next_activate_.resize(n_ranks);
}

void Device::raise(Scope scope, Command before, Earliest& earliest, int64_t at) const {
  const Earliest& delays = delays_[static_cast<size_t>(scope)][static_cast<size_t>(before)];
  for (size_t after = 0; after < kCommands; ++after)
    earliest[after] = std::max(earliest[after], at + delays[after]);
}

void Device::check_state(Command command, int bank, int64_t at) const {
  const int64_t first = earliest(command, bank);
  if (at < first) [[unlikely]]
    throw Error("a command no earlier than the timing rules allow",
                std::string(name_of(command)) + " at clock " + std::to_string(at),
                "clock " + std::to_string(first));
  const int row = open_row(bank);
  if (command == Command::kActivate)
    check(row == kNoRow, "a closed row to activate another", row, "PRE before it");
  if (command == Command::kRead || command == Command::kWrite)
    check(row != kNoRow, "an open row to read or write", "none", "ACT before it");
  if (command == Command::kRefresh)
    check(all_closed(rank_of(bank)), "a rank with all rows closed to refresh", "open rows", "PREA before it");
}

void Device::issue(Command command, int bank, int64_t at, int row) {
  check_state(command, bank, at);
  const int rank = rank_of(bank), banks_in_rank = spec_.geometry.banks();
  auto& open = open_[static_cast<size_t>(bank)];
  auto& open_banks = open_banks_[static_cast<size_t>(rank)];
  switch (command) {
    case Command::kActivate: {
      open = row;
      open_banks |= bit_of(bank);
      auto& next = next_activate_[static_cast<size_t>(rank)];
      activates_[static_cast<size_t>(rank)][next] = at + spec_.timing.nFAW;
      next = (next + 1) % 4;
      break;
    }
    case Command::kPrecharge:
      open = kNoRow;
      open_banks &= ~bit_of(bank);
      break;
    case Command::kPrechargeAll:
      std::fill_n(open_.begin() + rank * banks_in_rank, banks_in_rank, kNoRow);
      open_banks = 0;
      break;
    default:
      break;
  }
  raise(Scope::kBank, command, bank_[static_cast<size_t>(bank)], at);
  raise(Scope::kGroup, command, group_[static_cast<size_t>(group_of(bank))], at);
  for (int other = 0; other < ranks_; ++other)
    raise(other == rank ? Scope::kRank : Scope::kOtherRank, command, rank_[static_cast<size_t>(other)], at);
  bus_free_ = std::max(bus_free_, at + bus_clocks(command));
  ++count_[static_cast<size_t>(command)];
}

}  // namespace trimoe::ndp
