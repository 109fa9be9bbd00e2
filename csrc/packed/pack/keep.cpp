#include "packed/pack/keep.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace trimoe {
namespace {

// The four bytes that a row of the source has in a line, as the line has them.
template <Format kFormat>
uint32_t line_dword(uint32_t dword) {
  if constexpr (kFormat == Format::kFp8)
    return (dword & 0xff0000ffu) | (dword & 0x0000ff00u) << 8 | (dword & 0x00ff0000u) >> 8;
  if constexpr (kFormat == Format::kMxfp4) {
    uint32_t result = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const CodePlace place = code_place(kFormat, 0, i);
      result |= (dword >> 4 * i & 15u) << (place.byte * 8 + place.shift);
    }
    return result;
  }
  return dword;
}

template <Format kFormat>
void write_lines(const RawTile& tile, int64_t first_k, const TileTarget& target) {
  std::byte* lines = target.line(first_k);
  for (int64_t i = 0; i < kTileLines; ++i) {
    uint32_t line[kTileCols];
    for (int64_t c = 0; c < kTileCols; ++c) line[c] = line_dword<kFormat>(tile.dwords[c][i]);
    std::memcpy(lines + i * kLineBytes, line, sizeof line);
  }
}

void write_tile(const RawTile& tile, int64_t first_k, const TileTarget& target) {
  if (target.weights.format == Format::kFp8) return write_lines<Format::kFp8>(tile, first_k, target);
  if (target.weights.format == Format::kMxfp4) return write_lines<Format::kMxfp4>(tile, first_k, target);
  write_lines<Format::kBf16>(tile, first_k, target);  // fp32 too: neither is rearranged
}

// e4m3 has two codes that are NaN, e2m1 none.
bool has_nan_code(const RawTile& tile) {
  uint32_t found = 0;
  for (const auto& column : tile.dwords)
    for (const uint32_t dword : column) {
      const uint32_t magnitudes = dword & 0x7f7f7f7fu;
      found |= (magnitudes + 0x01010101u) & 0x80808080u;  // no carry leaves a byte of 7 bits
    }
  return found != 0;
}

void keep_fp8_scales(const SourceRows& source, const TileTarget& target) {
  const SourceView& view = source.view;
  constexpr int64_t kGroup = facts(Format::kFp8).default_group;
  for (int64_t k = 0; k < view.cols; k += kGroup) {
    const float scale =
        view.scale.data ? element_of(view.scale, source.row / view.block_rows, k / view.block_cols) : 1.0f;
    check_finite(std::isfinite(scale), source);
    std::memcpy(target.scales(k / kGroup), &scale, sizeof scale);
  }
}

void keep_mxfp4_scales(const SourceRows& source, const TileTarget& target) {
  const SourceView& view = source.view;
  constexpr int64_t kGroup = facts(Format::kMxfp4).default_group;
  for (int64_t group = 0; group < target.matrix.groups; ++group) {
    uint8_t scales[kTileCols];
    std::fill_n(scales, kTileCols, uint8_t{127});
    for (int64_t row = 0; row < source.rows && group * kGroup < view.cols; ++row) {
      const int64_t at = (source.row + row) / view.block_rows * view.scale.row_stride +
                         group * kGroup / view.block_cols * view.scale.col_stride;
      scales[row] = static_cast<const uint8_t*>(view.scale.data)[at];
      check_finite(scales[row] != 255, source);
    }
    std::memcpy(target.scales(group), scales, sizeof scales);
  }
}

// Whether blocks of `size` out of `total` are whole multiples of `unit`, or there is one block.
bool covers(int64_t size, int64_t unit, int64_t total) { return size % unit == 0 || size >= total; }

}  // namespace

bool can_keep_codes(const SourceView& view, const WeightFormat& weights) {
  switch (weights.format) {
    case Format::kF32:
      return view.type == SourceType::kF32 && !view.scale.data;
    case Format::kBf16:
      return view.type == SourceType::kBf16 && !view.scale.data;
    case Format::kFp8:
      return view.type == SourceType::kFp8 &&
             (!view.scale.data || (covers(view.block_rows, kTileCols, view.rows) &&
                                   covers(view.block_cols, weights.group, view.cols)));
    case Format::kMxfp4:
      return view.type == SourceType::kMxfp4 && view.scale.type == SourceType::kE8m0 &&
             covers(view.block_cols, weights.group, view.cols);
    case Format::kInt8:
    case Format::kInt4:
      return false;
  }
  return false;
}

void keep_codes(const SourceRows& source, const TileTarget& target) {
  const Format format = target.weights.format;
  RawTile tile;
  for (int64_t k = 0; k < target.matrix.k_padded; k += k_per_tile(format)) {
    read_raw(source, k, tile);
    if (format == Format::kFp8) check_finite(!has_nan_code(tile), source);
    write_tile(tile, k, target);
  }
  if (source.rows == 0 && format == Format::kFp8) return;
  if (format == Format::kFp8) keep_fp8_scales(source, target);
  if (format == Format::kMxfp4) keep_mxfp4_scales(source, target);
}

}  // namespace trimoe
