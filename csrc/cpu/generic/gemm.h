// The register-blocked gemm, once for all vector instruction sets and formats.
//
// Isa supplies: Vec (fp32 lanes), kLanes, kRegisters, load(), store(), add(). Step supplies the meaning
// of a 64-byte line: the element type A of rows, load() of one vector's worth of codes, decode<sub>() of
// the sub-th part of it into kWeightRegisters registers, multiply_add() of that with the A elements of
// one row, and what becomes of a sum when a group of k ends. Every (row, column) is one chain of
// additions in the order of walk_units() whatever the blocking: results do not depend on it, to the bit.
#pragma once

#include "cpu/kernel/kernel.h"
#include "packed/layout.h"

namespace trimoe::cpu {
namespace {

inline constexpr int kVectorRows = 12;  // rows of a register tile, at most

// One run of lines that lie together: of one k tile and one group.
template <class Isa, class Step, int kVecs, int kRows>
struct RegisterTile {
  using A = typename Step::A;
  static constexpr int kParts = static_cast<int>(kTileCols) / Isa::kLanes;  // vectors per column tile
  typename Step::Sum sum[kRows][kVecs];

  // Three strides from every third row reach all rows with few address registers.
  static constexpr int kBases = (kRows + 2) / 3;
  const std::byte* base[kBases];
  int64_t stride;

  static int64_t offset(int vec, int64_t panel_bytes) {
    const int tile = vec / kParts;
    return tile / 2 * panel_bytes + tile % 2 * kTileBytes + vec % kParts * (kLineBytes / kParts);
  }

  const A* row(int index) const { return reinterpret_cast<const A*>(base[index / 3] + index % 3 * stride); }

  // Rows are the outer loop of a step: the weights of all tiles stay in registers and each element of
  // A is broadcast once, right where it is used.
  template <int kSub>
  [[gnu::always_inline]] void sub_steps(const typename Step::Codes (&codes)[kVecs]) {
    if constexpr (kSub < Step::kSubs) {
      typename Step::Weights weights[kVecs];
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) weights[vec] = Step::template decode<kSub>(codes[vec]);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) Step::template multiply_add<kSub, kVecs>(row(r), weights, sum[r]);
      sub_steps<kSub + 1>(codes);
    }
  }

  [[gnu::always_inline]] void run(const std::byte* w, int64_t panel_bytes, int64_t lines) {
    for (int64_t line = 0; line < lines; ++line, w += kLineBytes) {
      typename Step::Codes codes[kVecs];
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) codes[vec] = Step::load(w + offset(vec, panel_bytes));
      sub_steps<0>(codes);
#pragma GCC unroll 16
      for (int i = 0; i < kBases; ++i) base[i] += Step::kPerLine * sizeof(A);
    }
  }
};

// Calls visit(unit) for every unit of k, in the order that all kernels here share: memory is read in
// several streams, because a hardware prefetcher follows one stream per page only to its end.
template <typename Visit>
[[gnu::always_inline]] inline void walk_units(int64_t units, const Visit& visit) {
  constexpr int64_t kSegments = 2;
  const int64_t segment = ceil_div(units, kSegments);
  for (int64_t i = 0; i < segment; ++i)
    for (int64_t first = 0; first + i < units; first += segment) visit(first + i);
}

// kRows rows x kTiles column tiles.
template <class Isa, class Step, int kTiles, int kRows>
void gemm_tile(const GemmArgs& args, int first_row, int first_tile) {
  constexpr int kVecs = kTiles * static_cast<int>(kTileCols) / Isa::kLanes;
  using Tile = RegisterTile<Isa, Step, kVecs, kRows>;
  Tile tile;
  tile.stride = args.a_stride;
  const std::byte* a = args.a + first_row * args.a_stride;
  const std::byte* panel = args.w + first_tile / 2 * args.panel_bytes;
  const std::byte* w = panel + first_tile % 2 * kTileBytes;
  const std::byte* scales = panel + args.k_tiles * 2 * kTileBytes;
  const int64_t lines = args.k_tiles * kTileLines;
  constexpr int64_t kLineOfA = Step::kPerLine * int64_t{sizeof(typename Step::A)};
  const std::byte* row_scales = a + lines * kLineOfA;
  float* c = args.c + first_row * args.c_stride + first_tile * kTileCols;

  const auto start = [&](int64_t group) {
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
      const auto sum = Step::start(row_scales + row * args.a_stride, group);
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) tile.sum[row][vec] = sum;
    }
  };
  bool written = false;
  const auto finish = [&](int64_t group) {
    typename Isa::Vec scale[kVecs];
#pragma GCC unroll 16
    for (int vec = 0; vec < kVecs; ++vec)
      scale[vec] = Step::scale(scales + (first_tile % 2 + vec / Tile::kParts) / 2 * args.panel_bytes, group,
                               (first_tile + vec / Tile::kParts) % 2, vec % Tile::kParts);
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
      for (int vec = 0; vec < kVecs; ++vec) {
        float* to = c + row * args.c_stride + vec * Isa::kLanes;
        const auto value = Step::finish(tile.sum[row][vec], scale[vec], row_scales + row * args.a_stride);
        Isa::store(to, written ? Isa::add(Isa::load(to), value) : value);
      }
    written = true;
  };

  FetchCursor next = *args.next;
  // The blocks of rows together fetch as much as they read.
  const int blocks = (args.rows + kRows - 1) / kRows;
  int until_fetch = first_row / kRows;  // runs
  const auto run = [&](int64_t line, int64_t count) {
    if (next.row && until_fetch-- == 0) {
      fetch<0, 0, kStreams>(next.row);
      if constexpr (kTiles > 1) fetch<1, 0, kStreams>(next.row);
      advance(next, kTiles > 1 ? 2 : 1);
      until_fetch = blocks - 1;
    }
#pragma GCC unroll 16
    for (int i = 0; i < Tile::kBases; ++i) tile.base[i] = a + 3 * i * args.a_stride + line * kLineOfA;
    tile.run(w + line / kTileLines * 2 * kTileBytes + line % kTileLines * kLineBytes, args.panel_bytes,
             count);
  };

  if constexpr (Step::kGrouped) {
    // A unit is a k tile, or a group where that is larger.
    const int64_t unit = args.group_lines < kTileLines ? kTileLines : args.group_lines;
    const int64_t run_lines = args.group_lines < kTileLines ? args.group_lines : kTileLines;
    walk_units(ceil_div(lines, unit), [&](int64_t index) {
      const int64_t end = (index + 1) * unit < lines ? (index + 1) * unit : lines;
      for (int64_t line = index * unit; line < end; line += run_lines) {
        if (line % args.group_lines == 0) start(line / args.group_lines);
        run(line, run_lines);
        if ((line + run_lines) % args.group_lines == 0 || line + run_lines == lines)
          finish(line / args.group_lines);
      }
    });
  } else {
    start(0);
    walk_units(args.k_tiles, [&](int64_t k_tile) { run(k_tile * kTileLines, kTileLines); });
    finish(0);
  }
  *args.next = next;
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
  if constexpr (kRows > 0)
    if (kTiles <= 2 || args.rows <= kRows || kRows == kVectorRows)
      for (; tile + kTiles <= 2 * args.panels; tile += kTiles) gemm_columns<Isa, Step, kTiles>(args, tile);
  // A panel has two tiles, so that nothing is left where two fit.
  if constexpr (kTiles > 2 || kRows <= 0)
    if (tile < 2 * args.panels) gemm_from<Isa, Step, kTiles / 2>(args, tile);
}

template <class Isa, class Step>
void gemm(const GemmArgs& args) {
  gemm_from<Isa, Step>(args, 0);
}

}  // namespace
}  // namespace trimoe::cpu
