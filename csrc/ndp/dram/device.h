// The banks of one sub-channel: which rows are open, and the earliest clock of every command.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "ndp/dram/rules.h"

namespace trimoe::ndp {

struct Place {
  int rank = 0, group = 0, bank = 0;  // bank: within its group
  int row = 0, burst = 0;
};

inline constexpr int kNoRow = -1;
inline constexpr int kMaxRanks = 8;  // on a sub-channel

class Device {
 public:
  Device(const DramSpec& spec, int ranks);

  const DramSpec& spec() const { return spec_; }
  int ranks() const { return ranks_; }
  int banks() const { return static_cast<int>(open_.size()); }

  // Number of a bank in the sub-channel, and back.
  int bank_index(const Place& place) const {
    return (place.rank * spec_.geometry.bank_groups + place.group) * spec_.geometry.banks_per_group +
           place.bank;
  }
  int group_of(int bank) const { return group_of_[static_cast<size_t>(bank)]; }
  int rank_of(int bank) const { return rank_of_[static_cast<size_t>(bank)]; }

  int open_row(int bank) const { return open_[static_cast<size_t>(bank)]; }
  bool all_closed(int rank) const { return open_banks(rank) == 0; }
  // Sets of the banks of a rank: a bit for each.
  uint64_t open_banks(int rank) const { return open_banks_[static_cast<size_t>(rank)]; }
  uint64_t bit_of(int bank) const { return uint64_t{1} << (bank - rank_of(bank) * spec_.geometry.banks()); }

  // First clock at which the timing rules let the command be issued, whatever rows are open. For commands to
  // a whole rank, any bank of it. In two parts: what holds for all banks of a rank, and what for one.
  int64_t earliest(Command command, int bank) const {
    return std::max(earliest_in_rank(command, rank_of(bank)), earliest_in_bank(command, bank));
  }
  int64_t earliest_in_rank(Command command, int rank) const {
    const auto r = static_cast<size_t>(rank);
    const int64_t at = std::max(bus_free_, rank_[r][static_cast<size_t>(command)]);
    return command == Command::kActivate ? std::max(at, activates_[r][next_activate_[r]]) : at;
  }
  int64_t earliest_in_bank(Command command, int bank) const {
    const auto c = static_cast<size_t>(command);
    return std::max(bank_[static_cast<size_t>(bank)][c], group_[static_cast<size_t>(group_of(bank))][c]);
  }

  // Throws Error where `at` is before earliest(), or where the command does not fit the rows that are open.
  // `row` is that of an activate.
  void issue(Command command, int bank, int64_t at, int row = 0);

  int64_t issued(Command command) const { return count_[static_cast<size_t>(command)]; }

 private:
  using Earliest = std::array<int64_t, kCommands>;

  void check_state(Command command, int bank, int64_t at) const;
  void raise(Scope scope, Command before, Earliest& earliest, int64_t at) const;

  const DramSpec spec_;
  const int ranks_;
  std::array<Earliest, kCommands> delays_[static_cast<size_t>(Scope::kCount)];  // of each command after each
  std::vector<int> group_of_, rank_of_;  // of each bank: looked up, because dividing takes longer
  std::vector<int> open_;                // row of each bank
  std::vector<uint64_t> open_banks_;     // of each rank
  std::vector<Earliest> bank_, group_, rank_;
  int64_t bus_free_ = 0;
  // When an activate may follow each of the last four.
  std::vector<std::array<int64_t, 4>> activates_;
  std::vector<uint8_t> next_activate_;
  std::array<int64_t, kCommands> count_{};
};

}  // namespace trimoe::ndp
