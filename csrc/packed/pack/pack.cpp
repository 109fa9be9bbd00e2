#include "packed/pack/pack.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/error.h"
#include "packed/pack/encode.h"
#include "packed/pack/keep.h"
#include "packed/pack/read.h"

namespace trimoe {
namespace {

// A part of an expert by the name that errors give it.
struct Part {
  const char* name;
  const SourceView& view;
};

void convert_tile(const SourceRows& source, const TileTarget& target) {
  const Format format = target.weights.format;
  const bool quantized = facts(format).scale != ScaleType::kNone;
  FloatBlock block;
  if (format == Format::kInt8) {
    float largest[kTileCols] = {};
    for (int64_t k = 0; k < target.matrix.k_padded; k += kBlockK) {
      read_floats(source, k, block);
      raise_to_largest(block, largest);
    }
    write_row_scales(largest, target);
  }
  for (int64_t k = 0; k < target.matrix.k_padded; k += kBlockK) {
    read_floats(source, k, block);
    if (quantized) check_finite(is_finite(block), source);
    encode_block(block, k, target);
  }
}

// One column tile from rows `row`.. of a part that has n of them.
void pack_tile(const Part& part, int64_t row, const TileTarget& target) {
  const SourceRows source{part.name, part.view, row, std::clamp<int64_t>(part.view.rows - row, 0, kTileCols)};
  if (can_keep_codes(part.view, target.weights))
    keep_codes(source, target);
  else
    convert_tile(source, target);
}

void pack_matrices(const LayerShape& shape, const ExpertSource& source, std::byte* expert) {
  const PackedMatrix gate_up = shape.gate_up(), down = shape.down();
  const bool gated = shape.activation.gated;
  const Part gate{"gate", source.gate}, up{"up", source.up};
  for (int64_t panel = 0; panel < gate_up.panels; ++panel) {
    std::byte* to = expert + panel * gate_up.panel_bytes();
    const int64_t row = panel * shape.panel_width();
    pack_tile(gated ? gate : up, row, {shape.weights, gate_up, to, 0});
    pack_tile(up, gated ? row : row + kTileCols, {shape.weights, gate_up, to, 1});
  }
  for (int64_t panel = 0; panel < down.panels; ++panel)
    for (int64_t tile = 0; tile < 2; ++tile)
      pack_tile({"down", source.down}, panel * kPanelCols + tile * kTileCols,
                {shape.weights, down, expert + shape.down_offset() + panel * down.panel_bytes(), tile});
}

// Columns tile by tile as in the weight panels, from one source per column tile.
void pack_bias(const SourceView& tile0, const SourceView& tile1, int64_t step, int64_t offset1, int64_t n,
               const PackedMatrix& matrix, float* out) {
  for (int64_t panel = 0; panel < matrix.panels; ++panel)
    for (int64_t column = 0; column < kPanelCols; ++column) {
      const bool second = column >= kTileCols;
      const int64_t index = panel * step + column % kTileCols + (second ? offset1 : 0);
      out[panel * kPanelCols + column] = index < n ? element_of(second ? tile1 : tile0, index, 0) : 0.0f;
    }
}

std::string shape_of(const SourceArray& array) {
  std::string text = array.data ? "[" : "nothing";
  if (array.data)
    text.append(std::to_string(array.rows)).append(", ").append(std::to_string(array.cols)).append("]");
  return text;
}

void check_array(const SourceArray& array, const char* expected, int64_t rows, int64_t cols) {
  check(
      array.data && array.rows == rows && array.cols == cols, expected, [&] { return shape_of(array); },
      "every part that the layer's spec names, in the shape it names");
}

bool is_float(SourceType type) {
  return type == SourceType::kF32 || type == SourceType::kBf16 || type == SourceType::kF16;
}

std::string name_of(SourceType type) { return std::string(kSourceTypeNames[static_cast<size_t>(type)]); }

void check_matrix(const SourceView& view, const char* expected, int64_t rows, int64_t cols) {
  check_array(view, expected, rows, cols);
  check(
      view.type != SourceType::kE8m0, "weights of fp32, bf16, fp16, fp8 or mxfp4",
      [&] { return name_of(view.type); }, "e8m0 for scales only");
  check(
      view.type != SourceType::kMxfp4 || (view.col_stride == 1 && view.row_stride % 2 == 0),
      "mxfp4 weights of contiguous columns and rows of whole bytes",
      [&] {
        return "strides " + std::to_string(view.row_stride) + " and " + std::to_string(view.col_stride);
      },
      "a contiguous tensor");
  check(view.type != SourceType::kMxfp4 || view.scale.data, "scales beside mxfp4 weights", "none",
        "the tensor of their e8m0 scales");
  if (!view.scale.data) return;
  check(view.block_rows >= 1 && view.block_cols >= 1, "blocks of at least one row and column",
        std::min(view.block_rows, view.block_cols), "weight_block_size of the config");
  check(
      view.scale.rows == ceil_div(rows, view.block_rows) &&
          view.scale.cols == ceil_div(cols, view.block_cols),
      "one scale per block of weights", [&] { return shape_of(view.scale); },
      "weight_block_size of the config");
  check(is_float(view.scale.type) || view.scale.type == SourceType::kE8m0,
        "scales of fp32, bf16, fp16 or e8m0", [&] { return name_of(view.scale.type); });
}

void check_bias(const SourceView& view, const char* expected, int64_t rows) {
  check_array(view, expected, rows, 1);
  check(is_float(view.type), "biases of fp32, bf16 or fp16", [&] { return name_of(view.type); });
}

}  // namespace

void pack_expert(const LayerShape& shape, const ExpertSource& source, std::byte* expert) {
  const bool gated = shape.activation.gated;
  if (gated) check_matrix(source.gate, "gate of shape [I, H]", shape.inter, shape.hidden);
  check_matrix(source.up, "up of shape [I, H]", shape.inter, shape.hidden);
  check_matrix(source.down, "down of shape [H, I]", shape.hidden, shape.inter);
  if (shape.bias) {
    if (gated) check_bias(source.gate_bias, "gate bias of shape [I]", shape.inter);
    check_bias(source.up_bias, "up bias of shape [I]", shape.inter);
    check_bias(source.down_bias, "down bias of shape [H]", shape.hidden);
  }
  std::memset(expert, 0, static_cast<size_t>(shape.expert_bytes()));
  pack_matrices(shape, source, expert);
  if (!shape.bias) return;
  pack_bias(gated ? source.gate_bias : source.up_bias, source.up_bias, shape.panel_width(),
            gated ? 0 : kTileCols, shape.inter, shape.gate_up(),
            reinterpret_cast<float*>(expert + shape.gate_up_bias_offset()));
  pack_bias(source.down_bias, source.down_bias, kPanelCols, kTileCols, shape.hidden, shape.down(),
            reinterpret_cast<float*>(expert + shape.down_bias_offset()));
}

}  // namespace trimoe
