// The cold experts of one decode step on many DIMMs, in time.
#pragma once

#include <span>
#include <vector>

#include "ndp/timing/expert.h"

namespace trimoe::ndp {

struct StepCase {
  int64_t layers = 0, experts = 0;
  int dimms = 16;
  int dimms_per_channel = 2;
};

struct StepTime {
  std::vector<double> layer_ns;  // [layers]
  std::vector<double> busy_ns;   // [dimms]: its experts, without waiting for the channel
  double total_ns;
  double channel_wait_ns;  // of all DIMMs together
  double dram_nj, channel_nj;
  int64_t experts_run;  // those with tokens
};

// tokens: [layers, experts]; home: the DIMM of each, [layers, experts]. Layers follow each other. In a layer
// all DIMMs start at once, and each runs its experts one after the other. DIMMs of one channel take turns on
// it, first come first served, for activations and results; their streams are their own. `shape.tokens` is
// not read. Throws Error for sizes out of range, and what expert_time throws.
StepTime simulate_step(const DramSpec& spec, const CoreConfig& core, const ExpertCase& shape,
                       const StepCase& step, std::span<const int64_t> tokens, std::span<const int64_t> home);

}  // namespace trimoe::ndp
