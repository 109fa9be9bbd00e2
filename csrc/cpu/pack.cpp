#include "cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "common/convert.h"
#include "common/error.h"

namespace trimoe::cpu {
namespace {

template <typename T>
T load_unaligned(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename Source>
const Source* at(const SourceView& view, int64_t row, int64_t col) {
  return static_cast<const Source*>(view.data) + row * view.row_stride + col * view.col_stride;
}

// Whole k tile of rows that are stored as packed: moves the 4-byte steps, a 16 x 16 transposition.
void copy_steps(const std::byte* from, int64_t row_bytes, int64_t rows, std::byte* out) {
  constexpr int64_t kWord = kStepBytes / kTileCols;
  for (int64_t step = 0; step < kTileSteps; ++step)
    for (int64_t column = 0; column < rows; ++column)
      std::memcpy(out + step * kStepBytes + column * kWord, from + column * row_bytes + step * kWord, kWord);
}

// Any strides, any conversion, any number of k up to a whole tile.
template <typename Source, typename Packed>
void convert_steps(const SourceView& view, int64_t row, int64_t rows, int64_t k0, int64_t k_count,
                   std::byte* out) {
  constexpr int64_t kPerStep = kStepBytes / kTileCols / int64_t{sizeof(Packed)};
  auto* packed = reinterpret_cast<Packed*>(out);
  for (int64_t column = 0; column < rows; ++column) {
    const Source* from = at<Source>(view, row + column, k0);
    for (int64_t k = 0; k < k_count; ++k)
      packed[(k / kPerStep * kTileCols + column) * kPerStep + k % kPerStep] =
          from_f32<Packed>(to_f32(load_unaligned<Source>(from + k * view.col_stride)));
  }
}

// One column tile: 16 rows of the source from `row`, all k. Rows and k beyond the source stay zero.
template <typename Source, typename Packed>
void pack_column_tile(const SourceView& view, int64_t row, int64_t rows, int64_t k_total, std::byte* panel,
                      int64_t tile) {
  constexpr int64_t kPerTile = kStepBytes / kTileCols / int64_t{sizeof(Packed)} * kTileSteps;
  const bool same = std::is_same_v<Source, Packed> && view.col_stride == 1;
  for (int64_t k0 = 0; k0 < k_total; k0 += kPerTile) {
    std::byte* out = panel + k0 / kPerTile * 2 * kTileBytes + tile * kTileBytes;
    const int64_t k_count = std::min(kPerTile, k_total - k0);
    if (same && k_count == kPerTile)
      copy_steps(reinterpret_cast<const std::byte*>(at<Source>(view, row, k0)),
                 view.row_stride * int64_t{sizeof(Source)}, rows, out);
    else
      convert_steps<Source, Packed>(view, row, rows, k0, k_count, out);
  }
}

template <typename Packed>
void pack_tile(const SourceView& view, int64_t row, int64_t n, int64_t k, std::byte* panel, int64_t tile) {
  const int64_t rows = std::clamp<int64_t>(n - row, 0, kTileCols);
  switch (view.dtype) {
    case DType::kF32:
      return pack_column_tile<float, Packed>(view, row, rows, k, panel, tile);
    case DType::kBf16:
      return pack_column_tile<Bf16, Packed>(view, row, rows, k, panel, tile);
    case DType::kF16:
      return pack_column_tile<F16, Packed>(view, row, rows, k, panel, tile);
  }
}

float bias_at(const SourceView& view, int64_t index) {
  switch (view.dtype) {
    case DType::kF32:
      return load_unaligned<float>(at<float>(view, index, 0));
    case DType::kBf16:
      return to_f32(load_unaligned<Bf16>(at<Bf16>(view, index, 0)));
    case DType::kF16:
      return to_f32(load_unaligned<F16>(at<F16>(view, index, 0)));
  }
  return 0.0f;
}

// Columns tile by tile as in the weight panels, from one source per column tile.
void pack_bias(const SourceView& tile0, const SourceView& tile1, int64_t step, int64_t offset1, int64_t n,
               const PackedMatrix& matrix, float* out) {
  for (int64_t panel = 0; panel < matrix.panels; ++panel)
    for (int64_t column = 0; column < kPanelCols; ++column) {
      const bool second = column >= kTileCols;
      const int64_t index = panel * step + column % kTileCols + (second ? offset1 : 0);
      out[panel * kPanelCols + column] = index < n ? bias_at(second ? tile1 : tile0, index) : 0.0f;
    }
}

template <typename Packed>
void pack_matrices(const LayerShape& shape, const ExpertSource& source, std::byte* expert) {
  const PackedMatrix gate_up = shape.gate_up(), down = shape.down();
  const bool gated = shape.activation.gated;
  for (int64_t panel = 0; panel < gate_up.panels; ++panel) {
    std::byte* to = expert + panel * gate_up.panel_bytes();
    const int64_t row = panel * shape.panel_width();
    pack_tile<Packed>(gated ? source.gate : source.up, row, shape.inter, shape.hidden, to, 0);
    pack_tile<Packed>(source.up, gated ? row : row + kTileCols, shape.inter, shape.hidden, to, 1);
  }
  for (int64_t panel = 0; panel < down.panels; ++panel)
    for (int64_t tile = 0; tile < 2; ++tile)
      pack_tile<Packed>(source.down, panel * kPanelCols + tile * kTileCols, shape.hidden, shape.inter,
                        expert + shape.down_offset() + panel * down.panel_bytes(), tile);
}

void check_part(const SourceView& part, const char* expected, int64_t rows, int64_t cols) {
  const auto got = [&] {
    std::string text = part.data ? "[" : "nothing";
    if (part.data)
      text.append(std::to_string(part.rows)).append(", ").append(std::to_string(part.cols)).append("]");
    return text;
  };
  check(part.data && part.rows == rows && part.cols == cols, expected, got,
        "every part that the layer's spec names, in the shape it names");
}

}  // namespace

void pack_expert(const LayerShape& shape, const ExpertSource& source, std::byte* expert) {
  const bool gated = shape.activation.gated;
  if (gated) check_part(source.gate, "gate of shape [I, H]", shape.inter, shape.hidden);
  check_part(source.up, "up of shape [I, H]", shape.inter, shape.hidden);
  check_part(source.down, "down of shape [H, I]", shape.hidden, shape.inter);
  if (shape.bias) {
    if (gated) check_part(source.gate_bias, "gate bias of shape [I]", shape.inter, 1);
    check_part(source.up_bias, "up bias of shape [I]", shape.inter, 1);
    check_part(source.down_bias, "down bias of shape [H]", shape.hidden, 1);
  }
  std::memset(expert, 0, static_cast<size_t>(shape.expert_bytes()));
  shape.weights == DType::kF32 ? pack_matrices<float>(shape, source, expert)
                               : pack_matrices<Bf16>(shape, source, expert);
  if (!shape.bias) return;
  pack_bias(gated ? source.gate_bias : source.up_bias, source.up_bias, shape.panel_width(),
            gated ? 0 : kTileCols, shape.inter, shape.gate_up(),
            reinterpret_cast<float*>(expert + shape.gate_up_bias_offset()));
  pack_bias(source.down_bias, source.down_bias, kPanelCols, kTileCols, shape.hidden, shape.down(),
            reinterpret_cast<float*>(expert + shape.down_bias_offset()));
}

}  // namespace trimoe::cpu
