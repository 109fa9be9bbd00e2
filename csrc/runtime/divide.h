// A call's experts by who runs them.
#pragma once

#include <span>
#include <vector>

#include "runtime/layer.h"

namespace trimoe::runtime {

struct Division {
  std::vector<cpu::HostExpert> host;        // the CPU's own, in order of index
  std::vector<std::vector<Share>> domains;  // of each domain of the wiring

  // plan [E], or empty: the CPU runs all. Throws Error for a code that the layer has no domain for, and for
  // an expert with rows that is idle.
  void assign(const OpenLayer& layer, const cpu::Routing& routing, std::span<const int32_t> plan);
};

}  // namespace trimoe::runtime
