#include "packed/pack/read.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/error.h"
#include "packed/codes.h"

namespace trimoe {
namespace {

const std::byte* address_of(const SourceArray& array, int64_t row, int64_t col) {
  return static_cast<const std::byte*>(array.data) +
         (row * array.row_stride + col * array.col_stride) * bits_of(array.type) / 8;
}

// `count` elements `stride` apart, without gaps.
template <typename Element>
void gather(const std::byte* from, int64_t stride, int64_t count, Element* to) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(Element));
  } else {
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(to + i, from + i * stride * int64_t{sizeof(Element)}, sizeof(Element));
  }
}

template <typename Element>
void convert(const std::byte* from, int64_t stride, int64_t count, float* to) {
  Element elements[kBlockK];
  gather(from, stride, count, elements);
  for (int64_t i = 0; i < count; ++i) to[i] = to_f32(elements[i]);
}

void convert_nibbles(const std::byte* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    const auto byte = std::to_integer<uint32_t>(from[i / 2]);
    to[i] = to_f32(E2m1{static_cast<uint8_t>(i % 2 ? byte >> 4 : byte & 15u)});
  }
}

void convert_run(SourceType type, const std::byte* from, int64_t stride, int64_t count, float* to) {
  switch (type) {
    case SourceType::kF32:
      return convert<float>(from, stride, count, to);
    case SourceType::kBf16:
      return convert<Bf16>(from, stride, count, to);
    case SourceType::kF16:
      return convert<F16>(from, stride, count, to);
    case SourceType::kFp8:
      return convert<E4m3>(from, stride, count, to);
    case SourceType::kMxfp4:
      return convert_nibbles(from, count, to);
    case SourceType::kE8m0:
      return convert<E8m0>(from, stride, count, to);
  }
}

// In order of memory: along k, or across the rows of a source that is stored transposed.
void read_unscaled(const SourceRows& source, int64_t first_k, int64_t count, FloatBlock& block) {
  const SourceView& view = source.view;
  if (view.col_stride != 1 && view.row_stride < view.col_stride) {
    for (int64_t k = 0; k < count; ++k)
      convert_run(view.type, address_of(view, source.row, first_k + k), view.row_stride, source.rows,
                  block.values[k]);
    return;
  }
  alignas(64) float rows[kTileCols][kBlockK];
  for (int64_t row = 0; row < source.rows; ++row)
    convert_run(view.type, address_of(view, source.row + row, first_k), view.col_stride, count, rows[row]);
  for (int64_t k = 0; k < count; ++k)
    for (int64_t row = 0; row < source.rows; ++row) block.values[k][row] = rows[row][k];
}

void apply_scales(const SourceRows& source, int64_t first_k, int64_t count, FloatBlock& block) {
  const SourceView& view = source.view;
  for (int64_t k = 0; k < count;) {
    const int64_t scale_col = (first_k + k) / view.block_cols;
    const int64_t end = std::min(count, (scale_col + 1) * view.block_cols - first_k);
    float scales[kTileCols] = {};
    for (int64_t row = 0; row < source.rows; ++row)
      scales[row] = element_of(view.scale, (source.row + row) / view.block_rows, scale_col);
    for (; k < end; ++k)
      for (int64_t row = 0; row < kTileCols; ++row) block.values[k][row] *= scales[row];
  }
}

}  // namespace

float element_of(const SourceArray& array, int64_t row, int64_t col) {
  float value = 0.0f;
  convert_run(array.type, address_of(array, row, col), 1, 1, &value);
  return value;
}

void check_finite(bool finite, const SourceRows& source) {
  check(
      finite, "finite weights for a quantised format",
      [&] {
        std::string text = "NaN or infinity in ";
        return text.append(source.part)
            .append(", rows ")
            .append(std::to_string(source.row))
            .append(" to ")
            .append(std::to_string(source.row + source.rows - 1));
      },
      "bf16 weights, which keep it, or a sound checkpoint");
}

void read_floats(const SourceRows& source, int64_t first_k, FloatBlock& block) {
  const int64_t count = std::clamp<int64_t>(source.view.cols - first_k, 0, kBlockK);
  if (source.rows < kTileCols || count < kBlockK) std::memset(&block, 0, sizeof block);
  if (source.rows == 0 || count == 0) return;
  read_unscaled(source, first_k, count, block);
  if (source.view.scale.data) apply_scales(source, first_k, count, block);
}

void read_raw(const SourceRows& source, int64_t first_k, RawTile& tile) {
  const SourceView& view = source.view;
  const int64_t bits = bits_of(view.type);
  const int64_t count = std::clamp<int64_t>(view.cols - first_k, 0, kLineBytes * 8 / bits);
  if (source.rows < kTileCols || count < kLineBytes * 8 / bits) std::memset(&tile, 0, sizeof tile);
  for (int64_t row = 0; row < source.rows; ++row) {
    const std::byte* from = address_of(view, source.row + row, first_k);
    auto* to = reinterpret_cast<std::byte*>(tile.dwords[row]);
    if (bits == 32) {
      gather(from, view.col_stride, count, reinterpret_cast<uint32_t*>(to));
    } else if (bits == 16) {
      gather(from, view.col_stride, count, reinterpret_cast<uint16_t*>(to));
    } else if (bits == 8) {
      gather(from, view.col_stride, count, reinterpret_cast<uint8_t*>(to));
    } else {
      std::memcpy(to, from, static_cast<size_t>(ceil_div(count, 2)));
      if (count % 2) to[count / 2] &= std::byte{15};  // the other half of the last byte is anything
    }
  }
}

}  // namespace trimoe
