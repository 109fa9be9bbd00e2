// Address patterns that memory systems are measured with.
#pragma once

#include <string_view>
#include <vector>

#include "ndp/dram/device.h"

namespace trimoe::ndp {

enum class Pattern { kStream, kRandom, kRandomSingleBank, kSingleBankGroup, kRowMajor };
inline constexpr std::string_view kPatternNames[] = {"stream", "random", "random-single-bank",
                                                     "single-bank-group", "row-major"};

// Throws Error for a name that is none.
Pattern pattern_named(std::string_view name);

// A small generator of its own, so that a seed means the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int below(int limit) {
    const auto values = static_cast<uint64_t>(limit);
    const bool is_power = (values & (values - 1)) == 0;  // as most are; dividing takes longer
    return static_cast<int>(is_power ? next() & (values - 1) : next() % values);
  }
  bool one_in_percent(int percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

// Where the bursts of a pattern lie, one after the other.
class Traffic {
 public:
  Traffic(const DramSpec& spec, int ranks, Pattern pattern, uint64_t seed);

  Place next();

 private:
  struct Digit {
    int Place::* part;
    int base;
  };

  bool is_random_;
  std::vector<Digit> digits_;  // of the address, the fastest first
  Place place_;                // the next one, of a pattern that counts
  Random random_;
};

}  // namespace trimoe::ndp
