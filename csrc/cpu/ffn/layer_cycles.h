// The cycle model of the tile gemms, for one call of a layer.
#pragma once

#include <utility>
#include <vector>

#include "amx/cycles.h"
#include "packed/layer.h"

namespace trimoe::cpu {

// Cycles of one core that does all of it: both matrices of every expert that has rows. No epilogue, no
// imbalance, no barrier. bytes_per_cycle: the core's share of the memory bandwidth, over its clock.
inline double layer_cycles(const LayerShape& shape, const std::vector<int64_t>& expert_rows,
                           double bytes_per_cycle) {
  double cycles = 0;
  for (const int64_t rows : expert_rows) {
    if (rows == 0) continue;
    for (const auto& [k, panels] :
         {std::pair(shape.hidden, shape.gate_up().panels), std::pair(shape.inter, shape.down().panels)}) {
      const amx::GemmCase one{shape.weights, shape.int8_activations, rows, k, panels};
      cycles += amx::predict(one, bytes_per_cycle).cycles;
    }
  }
  return cycles;
}

}  // namespace trimoe::cpu
