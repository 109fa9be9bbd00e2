// Reading a source for packing: sixteen rows at a time, which become the columns of a column tile.
#pragma once

#include "packed/pack/pack.h"

namespace trimoe {

// k of a block: whole k tiles and whole groups of every format but int8, whose group is the row.
inline constexpr int64_t kBlockK = 128;

// A window of a source: `rows` rows from `row` on, up to kTileCols of them.
struct SourceRows {
  const char* part;  // of the expert, for errors
  const SourceView& view;
  int64_t row;
  int64_t rows;
};

// [k][column] of fp32, scales applied; zero beyond the source.
struct FloatBlock {
  alignas(64) float values[kBlockK][kTileCols];
};

// The four bytes that each column has in each line of one k tile, as the source has them: [column][line].
struct RawTile {
  alignas(64) uint32_t dwords[kTileCols][kTileLines];
};

void read_floats(const SourceRows& source, int64_t first_k, FloatBlock& block);
void read_raw(const SourceRows& source, int64_t first_k, RawTile& tile);

// Throws Error, naming the part and the rows, unless they are finite: no quantised format has codes for NaN
// or infinity.
void check_finite(bool finite, const SourceRows& source);

// Element (row, col) of an array as fp32.
float element_of(const SourceArray& array, int64_t row, int64_t col);

}  // namespace trimoe
