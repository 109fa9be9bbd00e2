// The register-blocked gemm, once for all vector instruction sets.
//
// Isa supplies: Vec (fp32 lanes), kLanes, kMaxAccumulators, zero(), store(). Step supplies the
// meaning of a 64-byte step: the activation type A, k per step, load() of one vector's worth of
// weights and multiply_add() of it with the A elements of one row. Every (row, column) is one chain
// of additions in order of k whatever the blocking, so results do not depend on it bit for bit.
#pragma once

#include "cpu/kernel.h"
#include "cpu/layout.h"

namespace trimoe::cpu {
namespace {

template <class Isa, class Step, int kRows, int kPanels>
void gemm_tile(const GemmArgs& args, int first_row, int first_panel) {
  using A = typename Step::A;
  constexpr int kParts = static_cast<int>(kTileCols) / Isa::kLanes;  // vectors per column tile
  constexpr int kVecs = kPanels * 2 * kParts;
  typename Isa::Vec c[kRows][kVecs];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
    for (int vec = 0; vec < kVecs; ++vec) c[row][vec] = Isa::zero();

  // Three strides from every third row reach all rows with few address registers.
  const A* base[(kRows + 2) / 3];
  for (int row = 0; row < kRows; row += 3)
    base[row / 3] = static_cast<const A*>(args.a) + (first_row + row) * args.a_stride;
  const std::byte* w = args.w + first_panel * args.panel_bytes;
  const std::byte* prefetch = args.prefetch;

  for (int64_t k_tile = 0; k_tile < args.k_tiles; ++k_tile, w += 2 * kTileBytes) {
    for (int64_t step = 0; step < kTileSteps; ++step) {
      if (prefetch) __builtin_prefetch(prefetch, 0, 2), prefetch += kStepBytes;
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) {
        const int tile = vec / kParts;  // column tile within the panels
        const std::byte* address = w + (tile / 2) * args.panel_bytes + (tile % 2) * kTileBytes + step * kStepBytes +
                                   (vec % kParts) * (kStepBytes / kParts);
        const auto weights = Step::load(address);
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row)
          c[row][vec] = Step::multiply_add(base[row / 3] + (row % 3) * args.a_stride, weights, c[row][vec]);
      }
#pragma GCC unroll 16
      for (int group = 0; group < (kRows + 2) / 3; ++group) base[group] += Step::kPerStep;
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int vec = 0; vec < kVecs; ++vec)
      Isa::store(args.c + (first_row + row) * args.c_stride + first_panel * kPanelCols + vec * Isa::kLanes,
                 c[row][vec]);
}

// Rows a register tile can take beside kPanels panels.
template <class Isa, int kPanels>
constexpr int rows_that_fit() {
  return Isa::kMaxAccumulators / (kPanels * 2 * (static_cast<int>(kTileCols) / Isa::kLanes));
}

template <class Isa, class Step, int kPanels, int kRows>
void gemm_rows(const GemmArgs& args, int first_row, int rows, int first_panel) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return gemm_tile<Isa, Step, kRows, kPanels>(args, first_row, first_panel);
    return gemm_rows<Isa, Step, kPanels, kRows - 1>(args, first_row, rows, first_panel);
  }
}

// All rows of `kPanels` panels, in register tiles of nearly equal height.
template <class Isa, class Step, int kPanels>
void gemm_panels(const GemmArgs& args, int first_panel) {
  constexpr int kRows = rows_that_fit<Isa, kPanels>();
  const int tiles = (args.rows + kRows - 1) / kRows;
  for (int tile = 0, row = 0; tile < tiles; ++tile) {
    const int rows = (args.rows - row) / (tiles - tile);
    gemm_rows<Isa, Step, kPanels, kRows>(args, row, rows, first_panel);
    row += rows;
  }
}

// Few rows: several panels at once, so that memory is read in several streams. Many rows: one panel
// at a time, so that a weight vector is used by as many rows as there are registers.
template <class Isa, class Step>
void gemm(const GemmArgs& args) {
  int panel = 0;
  if constexpr (rows_that_fit<Isa, 4>() > 0)
    if (args.rows <= rows_that_fit<Isa, 4>())
      for (; panel + 4 <= args.panels; panel += 4) gemm_panels<Isa, Step, 4>(args, panel);
  if constexpr (rows_that_fit<Isa, 2>() > 0)
    if (args.rows <= rows_that_fit<Isa, 2>())
      for (; panel + 2 <= args.panels; panel += 2) gemm_panels<Isa, Step, 2>(args, panel);
  for (; panel < args.panels; ++panel) gemm_panels<Isa, Step, 1>(args, panel);
}

}  // namespace
}  // namespace trimoe::cpu
