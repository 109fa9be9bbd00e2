// When one DRAM command may follow another: the whole timing model, as a list of rules.
#pragma once

#include <vector>

#include "ndp/dram/spec.h"

namespace trimoe::ndp {

enum class Command : uint8_t { kActivate, kRead, kWrite, kPrecharge, kPrechargeAll, kRefresh, kCount };
inline constexpr int kCommands = static_cast<int>(Command::kCount);

constexpr const char* name_of(Command command) {
  constexpr const char* kNames[] = {"ACT", "RD", "WR", "PRE", "PREA", "REF"};
  return kNames[static_cast<int>(command)];
}

// Where the second command goes, seen from the first one. A wider scope includes the narrower ones, except
// that another rank is not the same.
enum class Scope : uint8_t { kBank, kGroup, kRank, kOtherRank, kCount };

struct Rule {
  Command before, after;
  Scope scope;
  int clocks;
};

// All rules but the one that counts: at most four activates in a rank within nFAW.
std::vector<Rule> rules_of(const DramTiming& timing);

// Clocks that a command takes on the command bus of its sub-channel.
constexpr int bus_clocks(Command command) {
  return command == Command::kActivate || command == Command::kRead || command == Command::kWrite ? 2 : 1;
}

}  // namespace trimoe::ndp
