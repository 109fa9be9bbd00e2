// How one call of an expert layer is cut: into chunks of tokens, a chunk into tasks, a task into gemm calls.
//
// Pure functions of sizes: what they choose changes how fast a call is, and never its result. No figure here
// is known to any other file, and all that is chosen can be printed.
#pragma once

#include <algorithm>
#include <string>

#include "cpu/kernel/kernel.h"
#include "packed/layer.h"

namespace trimoe::cpu {

inline constexpr int64_t kWalkRows = 256;  // rows of one expert that share one reading of the weights

// Tokens that go through a layer together: their rows of h are bounded, and so are the sums of one task.
// topk: experts of a token at most.
int64_t tokens_of_chunk(const LayerShape& shape, int64_t topk);

// Whether that many rows, (token, expert) pairs, are so few that waking a second thread costs more than it
// saves.
bool is_serial(const LayerShape& shape, int64_t rows);

// Rows of A lie so far apart, so that equal k of many rows do not share a cache set.
inline constexpr int64_t kStrideSlack = 64;
constexpr int64_t row_stride(int64_t bytes) { return round_up(bytes, kLineBytes) + kStrideSlack; }

// What a chunk's tasks depend on beside the layer.
struct ChunkSize {
  int64_t tokens;
  int64_t experts;  // that have some of them
  int workers;
  int nodes;  // of memory, which have equal shares of every matrix
};

struct FfnTiling {
  // Bytes from one row to the next: of x (tokens as rows of A), of h as activated, of h as rows of A.
  int64_t x_stride;
  int64_t h_stride;
  int64_t down_stride;
  // Of one task: tokens that it converts, rows of h that it quantises, panels that it multiplies.
  int64_t load_rows;
  int64_t quantize_rows;
  int64_t gate_up_panels;
  int64_t down_panels;
};

FfnTiling tiling_for(const LayerShape& shape, const Kernel& kernel, const ChunkSize& chunk);
std::string to_string(const FfnTiling& tiling);

// How some rows of A meet a run of panels. Inline: one is made for each expert of each task.
struct WalkTiling {
  int64_t row_tiles;  // as equal as whole rows allow, each at most as many as one gemm call takes
  int64_t k_tiles;    // multiplied at once: all, or as many as keep these rows in a second-level cache
  int64_t panels;     // that use such a part of A in turn; all of the run where k is not cut
  int panels_a_call;

  bool cuts_k(const PackedMatrix& matrix) const { return k_tiles < matrix.k_tiles; }
};

// rows: at most kWalkRows. stride: bytes from one row of A to the next. panels: of the run.
inline WalkTiling walk_tiling(const Kernel& kernel, const PackedMatrix& matrix, int64_t rows, int64_t stride,
                              int64_t panels) {
  constexpr int64_t kWalkBytes = int64_t{768} << 10;  // of A at once: part of a second-level cache
  constexpr int64_t kWalkPanels = 8;                  // that use such a part of A in turn
  const bool few = rows <= kernel.few_rows;
  WalkTiling tiling{.row_tiles = ceil_div(rows, int64_t{kernel.max_rows}),
                    .k_tiles = matrix.k_tiles,
                    .panels = panels,
                    .panels_a_call = few ? kMaxPanels : 1};
  if (!kernel.blocks_k || few) return tiling;
  const int64_t share = ceil_div(matrix.k_tiles, ceil_div(rows * stride, kWalkBytes));
  tiling.k_tiles = std::min(matrix.k_tiles, round_up(share, matrix.unit_tiles));  // whole groups
  if (tiling.cuts_k(matrix)) tiling.panels = kWalkPanels;
  return tiling;
}

std::string to_string(const WalkTiling& tiling);

}  // namespace trimoe::cpu
