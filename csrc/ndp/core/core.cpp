#include "ndp/core/core.h"

#include <algorithm>
#include <vector>

#include "common/convert.h"
#include "common/error.h"
#include "ndp/core/decode.h"
#include "ndp/core/mac_array.h"
#include "ndp/core/silu_unit.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kMaxDim = int64_t{1} << 20;

std::vector<float> numbers(int64_t count) { return std::vector<float>(static_cast<size_t>(count)); }

std::vector<float> widened(const Bf16* from, int64_t count) {
  std::vector<float> to = numbers(count);
  std::transform(from, from + count, to.begin(), [](Bf16 value) { return to_f32(value); });
  return to;
}

// The adder tree: row 0 becomes ((0 + 1) + (2 + 3)) + ...; rows is a power of two.
void add_rows(float* data, int64_t rows, int64_t width) {
  for (int64_t step = 1; step < rows; step *= 2)
    for (int64_t row = 0; row < rows; row += 2 * step)
      for (int64_t i = 0; i < width; ++i) data[row * width + i] += data[(row + step) * width + i];
}

void check_ranks(int ranks) {
  check(ranks == 1 || ranks == 2 || ranks == 4 || ranks == 8, "1, 2, 4 or 8 ranks", ranks, "4");
}

}  // namespace

void validate(const ExpertShape& shape, Number number) {
  const Format format = packed_format(number);
  check(shape.weights.format == format, "weights packed as the core's type of numbers lies",
        std::string(facts(shape.weights.format).name), "the format that goes with the dtype");
  check(shape.hidden >= 1 && shape.hidden <= kMaxDim, "a hidden size of 1 to 2^20", shape.hidden,
        "the hidden_size of the model's config");
  check(shape.inter >= 1 && shape.inter <= kMaxDim, "an expert intermediate size of 1 to 2^20", shape.inter,
        "the moe_intermediate_size of the config");
  const int32_t group = shape.weights.group;
  check(format == Format::kInt4 ? group == 32 || group == 64 || group == 128 : group == 0,
        "groups of 32, 64 or 128 for int4, none for others", group, "0, the default");
  check(shape.activation.gated || shape.activation.kind != Activation::kSwigluOai, "a gate for swiglu_oai",
        "no gate", "another activation, or a gate");
}

Slice slice_of(const ExpertShape& shape, int rank, int ranks) {
  check_ranks(ranks);
  check(rank >= 0 && rank < ranks, "a rank below the number of ranks", rank, "0 to ranks - 1");
  const int64_t panels = shape.gate_up().panels, leaves = kLeaves / ranks;
  const int64_t first = panels * rank / ranks, end = panels * (rank + 1) / ranks;
  const auto k_at = [&](int64_t panel) { return std::min(panel * shape.panel_width(), shape.inter); };
  return {rank * leaves, leaves, first, end - first, k_at(first), k_at(end)};
}

void gate_up(const CoreExpert& expert, const Slice& slice, const Bf16* x, int64_t tokens, float* sums) {
  const int64_t H = expert.shape.hidden;
  const PackedMatrix matrix = expert.shape.gate_up();
  const std::vector<float> wide = widened(x, tokens * H);
  std::vector<float> group_sums = numbers(tokens * kPanelCols);
  for (int64_t panel = 0; panel < slice.panels; ++panel) {
    const std::byte* weights = expert.data + (slice.first_panel + panel) * matrix.panel_bytes();
    multiply(expert.number, {weights, matrix, 0, H}, {wide.data(), H, tokens}, group_sums.data(),
             sums + panel * kPanelCols, slice.panels * kPanelCols);
  }
}

void activate(const CoreExpert& expert, const Slice& slice, const float* sums, int64_t tokens, Bf16* h) {
  const ExpertShape& shape = expert.shape;
  const int64_t width = shape.panel_width();
  const std::byte* bias = expert.data + shape.gate_up_bias_offset() + slice.first_panel * kPanelCols * 4;
  for (int64_t t = 0; t < tokens; ++t, sums += slice.panels * kPanelCols)
    for (int64_t i = 0; i < slice.k_end - slice.k_begin; ++i) {
      const auto value = [&](int64_t column) {
        return sums[column] + (shape.bias ? read<float>(bias + column * 4) : 0.0f);
      };
      const int64_t column = i / width * kPanelCols + i % width;
      const float up = shape.activation.gated ? value(column + kTileCols) : 0.0f;
      *h++ = from_f32<Bf16>(activation(shape.activation, value(column), up));
    }
}

void down(const CoreExpert& expert, const Slice& slice, const Bf16* h, int64_t tokens, float* partial) {
  const ExpertShape& shape = expert.shape;
  const PackedMatrix matrix = shape.down();
  const int64_t H = shape.hidden, stride = slice.k_end - slice.k_begin;
  const std::vector<float> wide = widened(h, tokens * stride);
  std::vector<float> group_sums = numbers(tokens * kPanelCols);
  std::vector<float> sums = numbers(slice.leaves * tokens * kPanelCols);  // [leaf][token][column]
  for (int64_t panel = 0; panel < matrix.panels; ++panel) {
    const std::byte* weights = expert.data + shape.down_offset() + panel * matrix.panel_bytes();
    for (int64_t leaf = 0; leaf < slice.leaves; ++leaf) {
      const Slice part = slice_of(shape, static_cast<int>(slice.first_leaf + leaf), kLeaves);
      multiply(expert.number, {weights, matrix, part.k_begin, part.k_end},
               {wide.data() + part.k_begin - slice.k_begin, stride, tokens}, group_sums.data(),
               sums.data() + leaf * tokens * kPanelCols, kPanelCols);
    }
    add_rows(sums.data(), slice.leaves, tokens * kPanelCols);
    const int64_t first = panel * kPanelCols, columns = std::min(kPanelCols, H - first);
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(sums.data() + t * kPanelCols, columns, partial + t * H + first);
  }
}

void reduce(const CoreExpert& expert, std::span<const float* const> partials, int64_t tokens, float scale,
            bool accumulate, float* result) {
  const ExpertShape& shape = expert.shape;
  const int64_t H = shape.hidden;
  const std::byte* bias = expert.data + shape.down_bias_offset();
  std::vector<float> sums = numbers(std::ssize(partials) * H);  // [rank][column]
  for (int64_t t = 0; t < tokens; ++t) {
    for (size_t rank = 0; rank < partials.size(); ++rank)
      std::copy_n(partials[rank] + t * H, H, sums.data() + static_cast<int64_t>(rank) * H);
    add_rows(sums.data(), std::ssize(partials), H);
    for (int64_t i = 0; i < H; ++i) {
      const float value =
          scale * (sums[static_cast<size_t>(i)] + (shape.bias ? read<float>(bias + i * 4) : 0.0f));
      result[t * H + i] = accumulate ? result[t * H + i] + value : value;
    }
  }
}

void expert_ffn(const CoreExpert& expert, int ranks, const Bf16* x, int64_t tokens, float scale,
                bool accumulate, float* result) {
  check_ranks(ranks);
  std::vector<std::vector<float>> partials;
  std::vector<const float*> in_order;
  for (int rank = 0; rank < ranks; ++rank) {
    const Slice slice = slice_of(expert.shape, rank, ranks);
    std::vector<float> sums = numbers(tokens * slice.panels * kPanelCols);
    std::vector<Bf16> h(static_cast<size_t>(tokens * (slice.k_end - slice.k_begin)));
    gate_up(expert, slice, x, tokens, sums.data());
    activate(expert, slice, sums.data(), tokens, h.data());
    partials.push_back(numbers(tokens * expert.shape.hidden));
    in_order.push_back(partials.back().data());
    down(expert, slice, h.data(), tokens, partials.back().data());
  }
  reduce(expert, in_order, tokens, scale, accumulate, result);
}

}  // namespace trimoe::ndp
