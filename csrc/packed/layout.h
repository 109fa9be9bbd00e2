// The packed layout: one for every instruction set, so that a packed file serves any machine.
//
// A weight matrix [N, K] (y = W x) is cut into panels of 32 output columns, a panel into two column
// tiles of 16. Along K a tile advances in lines of 64 bytes: 16 columns x 4 bytes, that is one k in
// fp32, a pair of k in bf16, four in 8 bits, eight in 4 bits. Sixteen lines of one column tile lie
// together: 1 KiB, sixteen AVX-512 registers; in bf16 and int8 it is one AMX B tile.
//
//   panel p: [k tile][column tile 0..1][line 0..15][column 0..15][k within line], then its scales
//
// Gate and up share a panel: column tile 0 holds 16 gate rows, tile 1 the same 16 up rows, so the
// activation is applied where the accumulators are. N and K are padded to whole tiles.
//
// Below 16 bits the middle two of every four k are swapped: the four bytes of a line's dword hold
// (k0, k2, k1, k3), so that its even bytes are the pair (k0, k1) that a bf16 dot product wants and
// its odd bytes the pair (k2, k3). In 4 bits the low nibbles hold the first four k that way, the
// high nibbles the next four.
//
// Scales: [group of k][column 0..31]; in fp8 [group][column tile 0..1]; padded to a line.
#pragma once

#include <cstddef>
#include <cstdint>

#include "packed/format.h"

namespace trimoe {

inline constexpr int kLayoutVersion = 2;  // part of the key of every packed file
inline constexpr int64_t kTileCols = 16;
inline constexpr int64_t kPanelCols = 2 * kTileCols;
inline constexpr int64_t kTileLines = 16;
inline constexpr int64_t kLineBytes = 64;
inline constexpr int64_t kTileBytes = kTileLines * kLineBytes;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Elements of k that one line covers.
constexpr int64_t k_per_line(Format format) { return 32 / facts(format).bits; }
constexpr int64_t k_per_tile(Format format) { return kTileLines * k_per_line(format); }

// Bytes of the scales of one group in one panel.
constexpr int64_t group_scale_bytes(Format format) {
  if (format == Format::kFp8) return 2 * 4;
  switch (facts(format).scale) {
    case ScaleType::kNone:
      return 0;
    case ScaleType::kF32:
      return kPanelCols * 4;
    case ScaleType::kBf16:
      return kPanelCols * 2;
    case ScaleType::kE8m0:
      return kPanelCols;
  }
  return 0;
}

// Shape of one packed matrix.
struct PackedMatrix {
  int64_t panels = 0;
  int64_t k_tiles = 0;
  int64_t k_padded = 0;
  int64_t groups = 1;       // of k; 1 where a format has no groups
  int64_t group_lines = 0;  // lines of one column tile that share a scale
  int64_t unit_tiles = 1;   // k tiles that make up whole groups, where a format has groups
  int64_t scale_bytes = 0;  // of one panel

  constexpr PackedMatrix() = default;
  constexpr PackedMatrix(WeightFormat weights, int64_t n_panels, int64_t k)
      : panels(n_panels),
        k_tiles(ceil_div(k, k_per_tile(weights.format))),
        k_padded(k_tiles * k_per_tile(weights.format)),
        groups(weights.group ? ceil_div(k_padded, weights.group) : 1),
        group_lines(weights.group ? weights.group / k_per_line(weights.format) : k_tiles * kTileLines),
        unit_tiles(weights.group ? ceil_div(group_lines, kTileLines) : 1),
        scale_bytes(round_up(groups * group_scale_bytes(weights.format), kLineBytes)) {}

  constexpr int64_t scales_offset() const { return k_tiles * 2 * kTileBytes; }  // within a panel
  constexpr int64_t panel_bytes() const { return scales_offset() + scale_bytes; }
  constexpr int64_t bytes() const { return panels * panel_bytes(); }
};

// Where the code of (column of the panel, k) lies inside its panel; shift counts bits within the byte.
struct CodePlace {
  int64_t byte;
  int shift;
};

constexpr CodePlace code_place(Format format, int64_t column, int64_t k) {
  const int64_t per_line = k_per_line(format);
  const int64_t line = k / per_line;
  const int64_t dword = line / kTileLines * 2 * kTileBytes + column / kTileCols * kTileBytes +
                        line % kTileLines * kLineBytes + column % kTileCols * 4;
  const int64_t in_line = k % per_line;
  const int bits = facts(format).bits;
  if (bits >= 16) return {dword + in_line * bits / 8, 0};
  constexpr int kSwapped[] = {0, 2, 1, 3};
  return {dword + kSwapped[in_line % 4], in_line >= 4 ? 4 : 0};
}

}  // namespace trimoe
