// A model of how long the tile gemms take, in cycles of the core's clock. A model, not a measurement: it is
// printed beside measured figures, so that a gap shows. No intrinsics: any machine can evaluate it.
//
// For each step (two tiles of B for up to two tiles of A) the multiplier and the load ports work at the same
// time, but not perfectly so; then come what a finished group of k, an expanded line of codes and a finished
// block cost. Weights stream from memory meanwhile: the slower of both counts.
#pragma once

#include "amx/kernels.h"
#include "packed/layout.h"

namespace trimoe::amx {

// Cycles unless named otherwise. "Manual": Intel's optimization manual on AMX, as recalled. "Here": measured
// on 2 cores of a Sapphire Rapids in a virtual machine, 2026-11-22, fastest of many runs; docs/amx.md has
// the measurements beside what the model makes of them.
struct TileCosts {
  double multiply = 16;         // one TDP of 16 rows, whatever its depth; manual, here 16.0
  double load_l1 = 8;           // one tile from L1; manual, here 8.7
  double load_l2 = 21;          // one tile from L2: 49 bytes a cycle; here 20 to 23
  double not_hidden = 0.18;     // of the shorter of multiplies and loads from L2; fitted here
  double step = 2;              // loop, addresses, prefetches; fitted here
  double block = 120;           // four stores of 16.5 and the last result, which takes 52; here
  double group = 20;            // sums of a finished group of k: stored, scaled, added to C; here, and
  double group_row = 7.5;       // as much again for each row
  double expand_codes = 3.2;    // one line of B from e4m3 codes; here 2.7 to 3.6; of int4 codes, assumed
  double expand_scaled = 6;     // one line of B from mxfp4 codes times their scales; here 5.4 to 6.5
  double expand_int8 = 1;       // one line of B of 8-bit codes from 4-bit ones; assumed, too short to be seen
  double dot_line = 2;          // one line of weights times one row in AVX-512 registers; assumed
  int64_t l1_bytes = 16 << 10;  // rows of A that stay there while B streams by; here, of 48 KiB
};

struct GemmCase {
  WeightFormat weights;
  bool int8_rows = false;  // rows of A in 8 bits (int8, W4A8), else bf16
  int64_t rows = 1;
  int64_t k = 1;
  int64_t panels = 1;  // of 32 columns
};

struct GemmPrediction {
  double peak_cycles;     // all multiply-adds at the multiplier's rate: the roofline of computing
  double compute_cycles;  // modelled, weights in L2
  double memory_cycles;   // all weight bytes at the given bandwidth: the roofline of memory
  double cycles;          // the prediction: the longer of the two before

  constexpr double fraction_of_peak() const { return peak_cycles / cycles; }
  constexpr double fraction_of_roofline() const {
    return (peak_cycles > memory_cycles ? peak_cycles : memory_cycles) / cycles;
  }
};

namespace cycles {

inline constexpr double kMacsPerCycle = 16 * 16 * 2;  // bf16; twice as many in 8 bits

constexpr double larger(double a, double b) { return a > b ? a : b; }
constexpr double smaller(double a, double b) { return a < b ? a : b; }

// Elements of k that one multiply takes: half a tile where a group of 8-bit products is shorter than one.
constexpr int64_t k_of_step(const GemmCase& c) {
  if (!c.int8_rows) return 32;
  return c.weights.group == 32 ? 32 : 64;
}

// One step for one or two tiles of A: two tiles of B, and twice as many multiplies as tiles of A.
constexpr double step(const GemmCase& c, int row_tiles, const TileCosts& costs) {
  const int64_t a_bytes = row_tiles * 16 * c.k * (c.int8_rows ? 1 : 2);
  const bool a_in_l1 = a_bytes <= costs.l1_bytes;
  const double from_l2 = (a_in_l1 ? 2 : 2 + row_tiles) * costs.load_l2;
  const double loads = from_l2 + (a_in_l1 ? row_tiles * costs.load_l1 : 0);
  const double multiplies = 2 * row_tiles * costs.multiply;
  return larger(multiplies, loads) + costs.not_hidden * smaller(multiplies, from_l2) + costs.step;
}

// Lines of B that one panel is expanded into, times what one costs.
constexpr double expansion(const GemmCase& c, int64_t k_padded, const TileCosts& costs) {
  const double bf16_lines = static_cast<double>(k_padded);  // two column tiles of k / 2 lines
  switch (c.weights.format) {
    case Format::kFp8:
      return bf16_lines * costs.expand_codes;
    case Format::kMxfp4:
      return bf16_lines * costs.expand_scaled;
    case Format::kInt4:
      return c.int8_rows ? bf16_lines / 2 * costs.expand_int8 : bf16_lines * costs.expand_codes;
    default:
      return 0;
  }
}

// Groups whose sums leave the tiles before the block is done.
constexpr int64_t groups(const GemmCase& c, const PackedMatrix& matrix) {
  const Format format = c.weights.format;
  return format == Format::kBf16 || format == Format::kMxfp4 ? 0 : matrix.groups;
}

constexpr double panel(const GemmCase& c, const PackedMatrix& matrix, const TileCosts& costs) {
  if (c.rows < kTilesFromRows)
    return static_cast<double>(c.rows * matrix.k_tiles * 2 * kTileLines) * costs.dot_line;
  const auto steps = static_cast<double>(ceil_div(matrix.k_padded, k_of_step(c)));
  double total = expansion(c, matrix.k_padded, costs);
  for (int64_t row = 0; row < c.rows; row += 32) {
    const int64_t rows = c.rows - row < 32 ? c.rows - row : 32;
    const int row_tiles = rows > 16 ? 2 : 1;
    const double group = costs.group + static_cast<double>(rows) * costs.group_row;
    total += steps * step(c, row_tiles, costs) + costs.block + static_cast<double>(groups(c, matrix)) * group;
  }
  return total;
}

}  // namespace cycles

// One core. bytes_per_cycle: its share of the memory bandwidth, over its clock; 0 where the weights are in
// the cache.
constexpr GemmPrediction predict(const GemmCase& c, double bytes_per_cycle, const TileCosts& costs = {}) {
  const PackedMatrix matrix(c.weights, c.panels, c.k);
  const double macs = static_cast<double>(c.rows * c.k * c.panels * kPanelCols);
  const double peak = macs / (cycles::kMacsPerCycle * (c.int8_rows ? 2 : 1));
  const double compute = static_cast<double>(c.panels) * cycles::panel(c, matrix, costs);
  const double memory = bytes_per_cycle > 0 ? static_cast<double>(matrix.bytes()) / bytes_per_cycle : 0;
  return {peak, compute, memory, cycles::larger(compute, memory)};
}

}  // namespace trimoe::amx
