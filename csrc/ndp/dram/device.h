// The banks of one sub-channel: which rows are open, and the earliest clock of every command.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "ndp/dram/rules.h"

namespace trimoe::ndp {

struct Place {
  int rank = 0, group = 0, bank = 0;  // bank: within its group
  int row = 0, burst = 0;
};

inline constexpr int kNoRow = -1;
inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();  // a clock that does not come
inline constexpr int kMaxRanks = 8;                                     // on a sub-channel

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
  bool all_closed(int rank) const { return open_in_rank_[static_cast<size_t>(rank)] == 0; }

  // First clock at which the timing rules let the command be issued, whatever rows are open. For commands to
  // a whole rank, any bank of it.
  int64_t earliest(Command command, int bank) const {
    return std::max({bus_free_, earliest_in_rank(command, rank_of(bank)), earliest_in_bank(command, bank)});
  }
  // Its parts, beside the command bus: what holds for all banks of a rank, and what for one.
  int64_t earliest_in_rank(Command command, int rank) const {
    return of_rank(rank)[static_cast<size_t>(command)];
  }
  int64_t earliest_in_bank(Command command, int bank) const {
    return earliest_[static_cast<size_t>(bank)][static_cast<size_t>(command)];
  }
  // First clock at which any bank could be sent the command.
  int64_t earliest_anywhere(Command command) const {
    int64_t at = earliest_in_rank(command, 0);
    for (int rank = 1; rank < ranks_; ++rank) at = std::min(at, earliest_in_rank(command, rank));
    return std::max(bus_free_, at);
  }

  // Throws Error where `at` is before earliest(), or where the command does not fit the rows that are open.
  // `row` is that of an activate.
  void issue(Command command, int bank, int64_t at, int row = 0);

  int64_t issued(Command command) const { return count_[static_cast<size_t>(command)]; }

 private:
  using Earliest = std::array<int64_t, 8>;  // of each command; eight, because a power of two is found sooner
  struct Delay {
    size_t after;  // number of a command
    int64_t clocks;
  };

  const Earliest& of_rank(int rank) const { return earliest_[open_.size() + static_cast<size_t>(rank)]; }
  Earliest& of_rank(int rank) { return earliest_[open_.size() + static_cast<size_t>(rank)]; }
  // Whether the command goes with the rows that are open.
  bool fits(Command command, int bank) const {
    const bool is_open = open_row(bank) != kNoRow;
    if (command == Command::kActivate) return !is_open;
    if (command == Command::kRead || command == Command::kWrite) return is_open;
    return command != Command::kRefresh || all_closed(rank_of(bank));
  }
  [[noreturn]] void refuse(Command command, int bank, int64_t at) const;
  void set_rows(Command command, int bank, int row);
  void raise(Command command, int bank, int64_t at);

  const DramSpec spec_;
  const int ranks_;
  std::vector<Delay> delays_[static_cast<size_t>(Scope::kCount)][kCommands];
  std::vector<int> group_of_, rank_of_;  // of each bank: looked up, because dividing takes longer
  std::vector<int> open_;                // row of each bank
  std::vector<int> open_in_rank_;        // banks with an open row
  std::vector<Earliest> earliest_;       // of each bank, with what its group asks for; then of each rank
  int64_t bus_free_ = 0;
  // When a fifth activate may follow each of the last four.
  std::vector<std::array<int64_t, 4>> activates_;
  std::vector<uint8_t> next_activate_;
  std::array<int64_t, kCommands> count_{};
};

}  // namespace trimoe::ndp
