// The packed layout: one for every instruction set, so that a packed file serves any machine.
//
// A weight matrix [N, K] (y = W x) is cut into panels of 32 output columns, a panel into two column
// tiles of 16. Along K a tile advances in steps of 64 bytes: 16 columns x 4 bytes, that is one k in
// fp32 and a pair of k in bf16 (the pair order that dot-product instructions want). Sixteen steps of
// one column tile lie together: 1 KiB, which is one AMX B tile and sixteen AVX-512 registers.
//
//   panel p: [k tile][column tile 0..1][step 0..15][column 0..15][k within step]
//
// Gate and up share a panel: column tile 0 holds 16 gate rows, tile 1 the same 16 up rows, so the
// activation is applied where the accumulators are. N and K are zero-padded to whole tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"

namespace trimoe {

inline constexpr int kLayoutVersion = 1;  // part of the key of every packed file
inline constexpr int64_t kTileCols = 16;
inline constexpr int64_t kPanelCols = 2 * kTileCols;
inline constexpr int64_t kTileSteps = 16;
inline constexpr int64_t kStepBytes = 64;
inline constexpr int64_t kTileBytes = kTileSteps * kStepBytes;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Elements of k that one 64-byte step covers.
constexpr int64_t k_per_step(DType weights) { return kStepBytes / kTileCols / size_of(weights); }

// Shape of one packed matrix.
struct PackedMatrix {
  int64_t panels = 0;
  int64_t k_tiles = 0;
  int64_t k_padded = 0;

  constexpr PackedMatrix() = default;
  constexpr PackedMatrix(DType weights, int64_t n_panels, int64_t k)
      : panels(n_panels),
        k_tiles(ceil_div(k, kTileSteps * k_per_step(weights))),
        k_padded(k_tiles * kTileSteps * k_per_step(weights)) {}

  constexpr int64_t panel_bytes() const { return k_tiles * 2 * kTileBytes; }
  constexpr int64_t bytes() const { return panels * panel_bytes(); }
};

// Byte offset of element (column of the panel, k) inside its panel.
constexpr int64_t element_offset(DType weights, int64_t column, int64_t k) {
  const int64_t per_step = k_per_step(weights);
  const int64_t step = k / per_step;
  return (step / kTileSteps) * 2 * kTileBytes + (column / kTileCols) * kTileBytes +
         (step % kTileSteps) * kStepBytes +
         ((column % kTileCols) * per_step + k % per_step) * size_of(weights);
}

}  // namespace trimoe
