#include "cpu/expert_ffn.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace trimoe::cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{256} << 20;  // intermediate rows of one chunk of tokens
constexpr int64_t kChunkTokens = 8192;               // bounds the sums of one task to 4 MiB
constexpr size_t kKeptBytes = size_t{64} << 20;      // more than this is given back after the call
constexpr int64_t kBlockBytes = int64_t{768} << 10;  // activation rows of one task: part of an L2
constexpr int64_t kSerialFlops = int64_t{2} << 20;   // below this, waking a thread costs more
constexpr int64_t kTasksPerWorker = 4;               // so that uneven tasks balance
constexpr int64_t kFewRows = 6;  // up to here memory is the limit: read several panels at once
constexpr int64_t kStrideSlack =
    64;  // bytes between rows, so that equal k of many rows do not share a cache set

// Buffers of one thread, kept between calls.
struct Scratch {
  PageBuffer rows, acc;
  alignas(64) float c[kMaxRows * kMaxPanels * kPanelCols];
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

// As many panels as a gemm call takes, fewer when the workers would run out of tasks.
int64_t panels_per_task(int64_t panels, int workers) {
  return std::clamp<int64_t>(panels / (kTasksPerWorker * workers), 1, kMaxPanels);
}

// One chunk of tokens through both matrices.
class Chunk {
 public:
  Chunk(const Layer& layer, const Kernel& kernel, const FfnArgs& args, const Routing& routing,
        int64_t first_token, int64_t tokens, std::byte* h, int64_t h_stride, int workers)
      : shape_(layer.shape()),
        layer_(layer),
        kernel_(kernel),
        args_(args),
        routing_(routing),
        gate_up_(shape_.gate_up()),
        down_(shape_.down()),
        gate_up_panels_(panels_per_task(std::ssize(routing.active) * gate_up_.panels, workers)),
        down_panels_(panels_per_task(down_.panels, workers)),
        a_bytes_(size_of(kernel.activations)),
        first_token_(first_token),
        tokens_(tokens),
        h_(h),
        h_stride_(h_stride) {}

  int64_t gate_up_blocks() const { return ceil_div(gate_up_.panels, gate_up_panels_); }
  int64_t gate_up_tasks() const { return std::ssize(routing_.active) * gate_up_blocks(); }
  int64_t down_tasks() const { return ceil_div(down_.panels, down_panels_); }

  // Task = (expert, block of panels): a hot expert is spread over all threads.
  void gate_up(int64_t task) const {
    const auto& expert = routing_.active[static_cast<size_t>(task / gate_up_blocks())];
    const int64_t first = task % gate_up_blocks() * gate_up_panels_;
    const int64_t panels = std::min(gate_up_panels_, gate_up_.panels - first);
    const int64_t stride = gate_up_.k_padded + kStrideSlack / a_bytes_;
    const int64_t block =
        std::max<int64_t>(kMaxRows, kBlockBytes / (stride * a_bytes_) / kMaxRows * kMaxRows);
    RowSource hidden = args_.hidden;
    hidden.data =
        static_cast<const std::byte*>(hidden.data) + first_token_ * hidden.row_stride * size_of(hidden.dtype);
    for (int64_t row = expert.begin; row < expert.end; row += block) {
      const int64_t rows = std::min(block, expert.end - row);
      void* a = scratch().rows.reserve(static_cast<size_t>(rows * stride * a_bytes_));
      kernel_.load_rows(hidden, &routing_.tokens[static_cast<size_t>(row)], static_cast<int>(rows), a, stride,
                        gate_up_.k_padded);
      gemm_block(layer_.expert(expert.index), gate_up_, first, panels, a, stride, rows,
                 [&](int64_t at, const GemmArgs& gemm, int64_t panel) {
                   activate(expert.index, row + at, gemm, panel);
                 });
    }
  }

  // Task = block of output columns, over all experts in order: no two tasks touch the same output,
  // and the sum over a token's experts always runs in the same order.
  void down(int64_t task) const {
    const int64_t first = task * down_panels_;
    const int64_t panels = std::min(down_panels_, down_.panels - first);
    const int64_t width = panels * kPanelCols;
    auto* acc = reinterpret_cast<float*>(scratch().acc.reserve(static_cast<size_t>(tokens_ * width * 4)));
    std::fill_n(acc, tokens_ * width, 0.0f);
    for (const auto& expert : routing_.active) {
      const std::byte* weights = layer_.expert(expert.index);
      const auto* bias =
          shape_.bias ? reinterpret_cast<const float*>(weights + shape_.down_bias_offset()) : nullptr;
      gemm_block(weights + shape_.down_offset(), down_, first, panels,
                 h_ + expert.begin * h_stride_ * a_bytes_, h_stride_, expert.end - expert.begin,
                 [&](int64_t at, const GemmArgs& gemm, int64_t panel) {
                   const auto row = static_cast<size_t>(expert.begin + at);
                   const int64_t column = panel * kPanelCols;
                   kernel_.accumulate({gemm.c, gemm.c_stride, gemm.rows, gemm.panels * kPanelCols,
                                       bias ? bias + column : nullptr, &routing_.tokens[row],
                                       &routing_.weights[row], acc + column - first * kPanelCols, width});
                 });
    }
    const int64_t column = first * kPanelCols;
    const int64_t out_bytes = size_of(args_.hidden.dtype);
    kernel_.store({acc, width, tokens_, std::min(width, shape_.hidden - column),
                   static_cast<std::byte*>(args_.out) + (first_token_ * shape_.hidden + column) * out_bytes,
                   args_.hidden.dtype, shape_.hidden});
  }

 private:
  // Walks `rows` x `panels` in gemm calls; finish(first row, gemm, panel) takes each result while it
  // is in the cache. Few rows take several panels at once, many rows reuse one panel from L2.
  template <typename Finish>
  void gemm_block(const std::byte* weights, const PackedMatrix& matrix, int64_t first, int64_t panels,
                  const void* a, int64_t stride, int64_t rows, const Finish& finish) const {
    const int64_t tiles = ceil_div(rows, kernel_.max_rows);
    const int64_t group = rows <= kFewRows ? kMaxPanels : 1;
    for (int64_t panel = first; panel < first + panels; panel += group)
      for (int64_t tile = 0, row = 0; tile < tiles; ++tile) {
        GemmArgs gemm{};
        gemm.rows = static_cast<int>((rows - row) / (tiles - tile));
        gemm.a = static_cast<const std::byte*>(a) + row * stride * a_bytes_;
        gemm.a_stride = stride;
        gemm.w = weights + panel * matrix.panel_bytes();
        gemm.panel_bytes = matrix.panel_bytes();
        gemm.k_tiles = matrix.k_tiles;
        gemm.panels = static_cast<int>(std::min(group, first + panels - panel));
        gemm.c = scratch().c;
        gemm.c_stride = gemm.panels * kPanelCols;
        if (group == 1 && tile < 2) {  // the panel that comes next, by one tile or half each by two
          gemm.prefetch = gemm.w + matrix.panel_bytes() + tile * matrix.panel_bytes() / 2;
          gemm.prefetch_lines = tiles == 1 ? 2 : 1;
        }
        kernel_.gemm(gemm);
        finish(row, gemm, panel);
        row += gemm.rows;
      }
  }

  void activate(int64_t expert, int64_t row, const GemmArgs& gemm, int64_t panel) const {
    const auto* bias = reinterpret_cast<const float*>(layer_.expert(expert) + shape_.gate_up_bias_offset());
    std::byte* h = h_ + (row * h_stride_ + panel * shape_.panel_width()) * a_bytes_;
    kernel_.activate({gemm.c, gemm.c_stride, gemm.rows, gemm.panels, shape_.activation,
                      shape_.bias ? bias + panel * kPanelCols : nullptr, h, h_stride_});
    if (panel + gemm.panels < gate_up_.panels) return;
    // The padding that the down matrix reads beyond the last panel.
    const int64_t end = gate_up_.panels * shape_.panel_width();
    for (int r = 0; r < gemm.rows && end < down_.k_padded; ++r)
      std::fill_n(h_ + ((row + r) * h_stride_ + end) * a_bytes_, (down_.k_padded - end) * a_bytes_,
                  std::byte{0});
  }

  const LayerShape& shape_;
  const Layer& layer_;
  const Kernel& kernel_;
  const FfnArgs& args_;
  const Routing& routing_;
  const PackedMatrix gate_up_, down_;
  const int64_t gate_up_panels_, down_panels_;  // of one task
  const int64_t a_bytes_;
  const int64_t first_token_, tokens_;
  std::byte* const h_;
  const int64_t h_stride_;
};

void count(Layer& layer, const Routing& routing, int64_t tokens) {
  const auto add = [](std::atomic<int64_t>& counter, int64_t value) {
    counter.fetch_add(value, std::memory_order_relaxed);
  };
  const LayerShape& shape = layer.shape();
  const auto rows = std::ssize(routing.tokens);
  add(layer.stats.tokens, tokens);
  add(layer.stats.rows, rows);
  add(layer.stats.experts_loaded, std::ssize(routing.active));
  add(layer.stats.weight_bytes, std::ssize(routing.active) * shape.expert_bytes());
  add(layer.stats.flops, 2 * rows * shape.hidden * shape.inter * (shape.activation.gated ? 3 : 2));
  for (const auto& expert : routing.active)
    add(layer.expert_rows[static_cast<size_t>(expert.index)], expert.end - expert.begin);
}

}  // namespace

void expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const FfnArgs& args) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  thread_local Routing routing;
  thread_local PageBuffer h;
  const LayerShape& shape = layer.shape();
  const int64_t a_bytes = size_of(kernel.activations);
  const int64_t h_stride =
      std::max(shape.down().k_padded, shape.gate_up().panels * shape.panel_width()) + kStrideSlack / a_bytes;
  const int64_t row_bytes = h_stride * a_bytes;
  const int64_t per_chunk = std::clamp<int64_t>(
      kChunkBytes / (row_bytes * std::max<int64_t>(1, args.router.topk)), 1, kChunkTokens);
  const int64_t chunks = std::max<int64_t>(1, ceil_div(args.tokens, per_chunk));

  for (int64_t index = 0, first = 0; index < chunks && first < args.tokens; ++index) {
    const int64_t tokens = (args.tokens - first) / (chunks - index);
    routing.assign(args.router, first, tokens, shape.experts);
    const auto rows = std::ssize(routing.tokens);
    const bool serial = rows * shape.hidden * shape.inter * 6 < kSerialFlops;
    const int workers = serial ? 1 : pool.max_workers();
    const Chunk chunk(layer, kernel, args, routing, first, tokens,
                      h.reserve(static_cast<size_t>(rows * row_bytes)), h_stride, workers);
    parallel_tasks(pool, workers, chunk.gate_up_tasks(), [&](int64_t task) { chunk.gate_up(task); });
    parallel_tasks(pool, workers, chunk.down_tasks(), [&](int64_t task) { chunk.down(task); });
    count(layer, routing, tokens);
    first += tokens;
  }
  if (h.size() > kKeptBytes) h = PageBuffer();
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
  layer.stats.calls.fetch_add(1, std::memory_order_relaxed);
  layer.stats.busy_ns.fetch_add(elapsed.count(), std::memory_order_relaxed);
}

}  // namespace trimoe::cpu
