// What goes wrong, on purpose: at a command that is named, or drawn from a seed.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

#include "ndp/dram/traffic.h"

namespace trimoe::ndp {

enum class Fault : uint8_t {
  kNone,
  kCorrupt,  // a bit of the descriptor flips on its way
  kTimeout,  // the command never ends; RESET helps
  kDeath,    // as before, and nothing helps; the memory stays readable by the host
  kEcc,      // the memory that the command reads cannot be corrected
};
inline constexpr std::string_view kFaultNames[] = {"none", "corrupt", "timeout", "death", "ecc"};

struct FaultRates {  // per command
  double corrupt = 0, timeout = 0, death = 0, ecc = 0;
};

struct FaultEvent {
  Fault fault = Fault::kNone;
  double at = 0.5;  // share of the command's time that has passed by then
};

class Faults {
 public:
  Faults() : random_(0) {}
  Faults(uint64_t seed, const FaultRates& rates) : random_(seed), rates_(rates) {}

  // The command with this number, counted from 0, whatever the rates.
  void inject(int64_t command, FaultEvent event) { planned_[command] = event; }

  // What befalls the next command.
  FaultEvent next();

 private:
  Random random_;
  FaultRates rates_;
  std::map<int64_t, FaultEvent> planned_;
  int64_t commands_ = 0;
};

}  // namespace trimoe::ndp
