#include "cpu/ffn/tiling.h"

#include <initializer_list>
#include <utility>

namespace trimoe::cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{256} << 20;  // intermediate rows of one chunk of tokens
constexpr int64_t kChunkTokens = 8192;               // bounds the sums of one task
constexpr int64_t kSumBytes = int64_t{512} << 10;    // sums of one task: part of an L2
constexpr int64_t kSerialFlops = int64_t{2} << 20;   // below this, waking a thread costs more
constexpr int64_t kTasksPerWorker = 16;              // so that uneven tasks balance
constexpr int64_t kDownTasksPerWorker = 4;           // these are even
constexpr int64_t kMostDownPanels = 16;
constexpr int64_t kLoadBytes = int64_t{64} << 10;  // rows that one task converts or quantises

// Panels of one gate and up task, of `panels` in all; with several nodes, as many tasks for each of them.
int64_t gate_up_panels(int64_t panels, const ChunkSize& chunk) {
  const int64_t fair = round_up(chunk.experts * panels / (kTasksPerWorker * chunk.workers), kMaxPanels);
  const int64_t chosen = std::clamp<int64_t>(fair, 1, panels);
  if (chunk.nodes == 1) return chosen;
  return ceil_div(panels, round_up(ceil_div(panels, chosen), chunk.nodes));  // as near as whole panels allow
}

int64_t down_panels(int64_t panels, const ChunkSize& chunk) {
  const int64_t fitting = std::max<int64_t>(1, kSumBytes / (chunk.tokens * kPanelCols * 4));
  return std::clamp<int64_t>(ceil_div(panels, kDownTasksPerWorker * chunk.workers), 1,
                             std::min(fitting, kMostDownPanels));
}

std::string listed(std::initializer_list<std::pair<const char*, int64_t>> values) {
  std::string text;
  for (const auto& [name, value] : values)
    text += (text.empty() ? "" : ", ") + std::string(name) + ' ' + std::to_string(value);
  return text;
}

}  // namespace

int64_t tokens_of_chunk(const LayerShape& shape, int64_t topk) {
  const int64_t bytes_a_token = shape.down().k_padded * 4 * std::max<int64_t>(1, topk);
  return std::clamp<int64_t>(kChunkBytes / bytes_a_token, 1, kChunkTokens);
}

bool is_serial(const LayerShape& shape, int64_t rows) {
  return rows * shape.hidden * shape.inter * 6 < kSerialFlops;
}

FfnTiling tiling_for(const LayerShape& shape, const Kernel& kernel, const ChunkSize& chunk) {
  const PackedMatrix gate_up = shape.gate_up(), down = shape.down();
  const int64_t h_width = std::max(down.k_padded, gate_up.panels * shape.panel_width());
  FfnTiling tiling{};
  tiling.x_stride = row_stride(row_bytes(kernel.a, row_shape(shape.gate_up(), shape.weights)));
  tiling.h_stride = row_stride(h_width * size_of(kernel.h));
  tiling.down_stride = is_quantized(kernel.a)
                           ? row_stride(row_bytes(kernel.a, row_shape(shape.down(), shape.weights)))
                           : tiling.h_stride;
  tiling.load_rows = std::max<int64_t>(1, kLoadBytes / tiling.x_stride);
  tiling.quantize_rows = std::max<int64_t>(1, kLoadBytes / tiling.h_stride);
  tiling.gate_up_panels = gate_up_panels(gate_up.panels, chunk);
  tiling.down_panels = down_panels(down.panels, chunk);
  return tiling;
}

std::string to_string(const FfnTiling& tiling) {
  return listed({{"x_stride", tiling.x_stride},
                 {"h_stride", tiling.h_stride},
                 {"down_stride", tiling.down_stride},
                 {"load_rows", tiling.load_rows},
                 {"quantize_rows", tiling.quantize_rows},
                 {"gate_up_panels", tiling.gate_up_panels},
                 {"down_panels", tiling.down_panels}});
}

std::string to_string(const WalkTiling& tiling) {
  return listed({{"row_tiles", tiling.row_tiles},
                 {"k_tiles", tiling.k_tiles},
                 {"panels", tiling.panels},
                 {"panels_a_call", tiling.panels_a_call}});
}

}  // namespace trimoe::cpu
