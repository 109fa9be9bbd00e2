// Encoding of a column tile for packing: fp32 blocks into the lines and scales of a panel.
#pragma once

#include "packed/pack/read.h"

namespace trimoe {

// One column tile of a panel that is being written.
struct TileTarget {
  WeightFormat weights;
  const PackedMatrix& matrix;
  std::byte* panel;
  int64_t tile;  // 0 or 1

  // The line that holds k of all columns.
  std::byte* line(int64_t k) const { return panel + code_place(weights.format, tile * kTileCols, k).byte; }
  // The scales of the tile's columns (fp8: its one scale) for a group of k.
  std::byte* scales(int64_t group) const {
    const int64_t bytes = group_scale_bytes(weights.format);
    return panel + matrix.scales_offset() + group * bytes + tile * bytes / 2;
  }
};

// Whether every value is: NaN and infinities have no code in a quantised format.
bool is_finite(const FloatBlock& block);

// Raises `largest` to the largest magnitude of each column.
void raise_to_largest(const FloatBlock& block, float (&largest)[kTileCols]);

// int8: one scale for all k of a column, from the largest magnitudes; to be written before the codes.
void write_row_scales(const float (&largest)[kTileCols], const TileTarget& target);

// Writes the lines of k first_k.. of the block, with their scales (int8: by the scales written before).
void encode_block(const FloatBlock& block, int64_t first_k, const TileTarget& target);

}  // namespace trimoe
