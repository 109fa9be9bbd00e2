// The register-blocked gemm, once for all vector instruction sets.
//
// Isa supplies: Vec (fp32 lanes), kLanes, kRegisters, zero(), store(). Step supplies the meaning of a
// 64-byte step: the activation type A, k per step, load() of one vector's worth of weights (into
// kWeightRegisters registers) and multiply_add() of it with the A elements of one row. Every
// (row, column) is one chain of additions in order of k whatever the blocking, so results do not
// depend on it bit for bit.
#pragma once

#include "common/kernel.h"
#include "common/layout.h"

namespace trimoe::cpu {
namespace {

inline constexpr int kVectorRows = 12;  // rows of a register tile, at most

// kRows rows x kTiles column tiles in registers. Rows are the outer loop of a step: the weights of
// all tiles stay in registers and each element of A is broadcast once, right where it is used.
template <class Isa, class Step, int kTiles, int kRows>
void gemm_tile(const GemmArgs& args, int first_row, int first_tile) {
  using A = typename Step::A;
  constexpr int kParts = static_cast<int>(kTileCols) / Isa::kLanes;  // vectors per column tile
  constexpr int kVecs = kTiles * kParts;
  typename Isa::Vec c[kRows][kVecs];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
    for (int vec = 0; vec < kVecs; ++vec) c[row][vec] = Isa::zero();

  // Three strides from every third row reach all rows with few address registers.
  const A* base[(kRows + 2) / 3];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; row += 3)
    base[row / 3] = static_cast<const A*>(args.a) + (first_row + row) * args.a_stride;
  const std::byte* w = args.w + first_tile / 2 * args.panel_bytes + first_tile % 2 * kTileBytes;
  const std::byte* prefetch = args.prefetch;

  for (int64_t k_tile = 0; k_tile < args.k_tiles; ++k_tile, w += 2 * kTileBytes) {
    for (int64_t step = 0; step < kTileSteps; ++step) {
      for (int line = 0; line < args.prefetch_lines; ++line, prefetch += kStepBytes)
        __builtin_prefetch(prefetch, 0, 2);
      decltype(Step::load(w)) weights[kVecs];
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) {
        const int tile = vec / kParts;
        weights[vec] = Step::load(w + tile / 2 * args.panel_bytes + tile % 2 * kTileBytes +
                                  step * kStepBytes + vec % kParts * (kStepBytes / kParts));
      }
#pragma GCC unroll 16
      for (int row = 0; row < kRows; ++row)
        Step::template multiply_add<kVecs>(base[row / 3] + row % 3 * args.a_stride, weights, c[row]);
#pragma GCC unroll 16
      for (int group = 0; group < (kRows + 2) / 3; ++group) base[group] += Step::kPerStep;
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
    for (int vec = 0; vec < kVecs; ++vec)
      Isa::store(args.c + (first_row + row) * args.c_stride + first_tile * kTileCols + vec * Isa::kLanes,
                 c[row][vec]);
}

// Rows that fit the register file beside kTiles column tiles: per vector one accumulator a row and
// the weights; two registers for broadcasts.
template <class Isa, class Step, int kTiles>
constexpr int rows_that_fit() {
  constexpr int kVecs = kTiles * static_cast<int>(kTileCols) / Isa::kLanes;
  constexpr int kRows = (Isa::kRegisters - 2) / kVecs - Step::kWeightRegisters;
  return kRows < kVectorRows ? kRows : kVectorRows;
}

template <class Isa, class Step, int kTiles, int kRows>
void gemm_rows(const GemmArgs& args, int first_row, int rows, int first_tile) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return gemm_tile<Isa, Step, kTiles, kRows>(args, first_row, first_tile);
    return gemm_rows<Isa, Step, kTiles, kRows - 1>(args, first_row, rows, first_tile);
  }
}

// All rows of `kTiles` column tiles, in register tiles of nearly equal height.
template <class Isa, class Step, int kTiles>
void gemm_columns(const GemmArgs& args, int first_tile) {
  constexpr int kRows = rows_that_fit<Isa, Step, kTiles>();
  const int blocks = (args.rows + kRows - 1) / kRows;
  for (int block = 0, row = 0; block < blocks; ++block) {
    const int rows = (args.rows - row) / (blocks - block);
    gemm_rows<Isa, Step, kTiles, kRows>(args, row, rows, first_tile);
    row += rows;
  }
}

// Few rows: several panels at once, so that memory is read in several streams. Many rows: as few
// columns as it takes for a weight vector to be used by all of them.
template <class Isa, class Step, int kTiles = 2 * kMaxPanels>
void gemm_from(const GemmArgs& args, int tile) {
  constexpr int kRows = rows_that_fit<Isa, Step, kTiles>();
  if constexpr (kTiles > 1) {
    if constexpr (kRows > 0)
      if (args.rows <= kRows || kRows == kVectorRows)
        for (; tile + kTiles <= 2 * args.panels; tile += kTiles) gemm_columns<Isa, Step, kTiles>(args, tile);
    if (tile < 2 * args.panels) gemm_from<Isa, Step, kTiles / 2>(args, tile);
  } else {
    for (; tile < 2 * args.panels; ++tile) gemm_columns<Isa, Step, 1>(args, tile);
  }
}

template <class Isa, class Step>
void gemm(const GemmArgs& args) {
  gemm_from<Isa, Step>(args, 0);
}

}  // namespace
}  // namespace trimoe::cpu
