#include "cpu/ffn/expert_ffn.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "cpu/ffn/chunk_rows.h"
#include "cpu/ffn/panel_walk.h"
#include "cpu/ffn/tiling.h"

namespace trimoe::cpu {
namespace {

constexpr size_t kKeptBytes = size_t{64} << 20;  // more than this is given back after the call

// Buffers of one thread, kept between calls.
struct Scratch {
  PageBuffer rows, acc;
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

// Buffers of one call, kept by the calling thread between calls.
struct Buffers {
  PageBuffer x, h, quantized_h;
};

// Rows of one buffer: where they lie and how far apart.
struct Rows {
  std::byte* data;
  int64_t stride;  // bytes
  std::byte* at(int64_t row) const { return data + row * stride; }
};

Rows reserve_rows(PageBuffer& buffer, int64_t rows, int64_t stride) {
  return {buffer.reserve(static_cast<size_t>((rows + kRowSlack) * stride)), stride};
}

// One chunk of tokens through both matrices.
class Chunk {
 public:
  Chunk(const LayerShape& shape, const Kernel& kernel, const FfnArgs& args, const ChunkRows& rows_of,
        int64_t first_token, int64_t tokens, Buffers& buffers, int workers)
      : shape_(shape),
        kernel_(kernel),
        args_(args),
        rows_(rows_of),
        gate_up_(shape_.gate_up()),
        down_(shape_.down()),
        first_token_(first_token),
        tokens_(tokens),
        tiling_(tiling_for(shape, kernel,
                           {.tokens = tokens,
                            .experts = std::ssize(rows_of.experts),
                            .workers = workers,
                            .nodes = static_cast<int>(numa_nodes().size())})) {
    const int64_t rows = std::ssize(rows_.tokens);
    x_ = reserve_rows(buffers.x, tokens, tiling_.x_stride);
    h_ = reserve_rows(buffers.h, rows, tiling_.h_stride);
    down_rows_ = is_quantized(kernel.a) ? reserve_rows(buffers.quantized_h, rows, tiling_.down_stride) : h_;
  }

  int64_t load_tasks() const { return rows_.experts.empty() ? 0 : ceil_div(tokens_, tiling_.load_rows); }
  int64_t gate_up_blocks() const { return ceil_div(gate_up_.panels, tiling_.gate_up_panels); }
  int64_t gate_up_tasks() const { return std::ssize(rows_.experts) * gate_up_blocks(); }
  int64_t quantize_tasks() const {
    return is_quantized(kernel_.a) ? ceil_div(std::ssize(rows_.tokens), tiling_.quantize_rows) : 0;
  }
  int64_t down_tasks() const { return ceil_div(down_.panels, tiling_.down_panels); }

  // Task = some tokens: hidden, as rows of A.
  void load(int64_t task) const {
    const int64_t first = task * tiling_.load_rows, rows = std::min(tiling_.load_rows, tokens_ - first);
    kernel_.load_rows({args_.hidden, first_token_ + first, rows, row_shape(gate_up_, shape_.weights),
                       x_.at(first), x_.stride});
  }

  // Task = (expert, block of panels): a hot expert is spread over all threads.
  void gate_up(int64_t task, int64_t next) const {
    const KernelRegion region(kernel_);
    const Block block = gate_up_block(task);
    const auto& expert = *block.expert;
    const PanelRun run = gate_up_run(block);
    const PanelRun following = next < gate_up_tasks() ? gate_up_run(gate_up_block(next)) : PanelRun();
    for (int64_t row = expert.begin; row < expert.end; row += kWalkRows) {
      const int64_t rows = std::min(kWalkRows, expert.end - row);
      const Rows a = gather(row, rows);
      walk_panels(kernel_, gate_up_, run, following, a.data, a.stride, rows,
                  [&](int64_t at, const GemmArgs& gemm, int64_t panel) {
                    activate(expert, row + at, gemm, block.first + panel);
                  });
    }
  }

  // Task = some rows of h, as rows of A.
  void quantize(int64_t task) const {
    const int64_t first = task * tiling_.quantize_rows;
    const int64_t rows = std::min<int64_t>(tiling_.quantize_rows, std::ssize(rows_.tokens) - first);
    const RowSource source{h_.data, kernel_.h, h_.stride / size_of(kernel_.h), 1, down_.k_padded};
    kernel_.load_rows(
        {source, first, rows, row_shape(down_, shape_.weights), down_rows_.at(first), down_rows_.stride});
  }

  // Task = block of output columns, over all experts in order: no two tasks touch the same output,
  // and the sum over a token's experts always runs in the same order.
  void down(const float* initial, int64_t task, int64_t next) const {
    const KernelRegion region(kernel_);
    const int64_t first = task * tiling_.down_panels;
    const int64_t panels = std::min(tiling_.down_panels, down_.panels - first);
    const int64_t width = panels * kPanelCols;
    auto* acc = reinterpret_cast<float*>(scratch().acc.reserve(static_cast<size_t>(tokens_ * width * 4)));
    start(acc, initial, first * kPanelCols, width);
    for (size_t e = 0; e < rows_.experts.size(); ++e) {
      const auto& expert = rows_.experts[e];
      const auto* bias = reinterpret_cast<const float*>(expert.weights + shape_.down_bias_offset());
      const PanelRun following = e + 1 < rows_.experts.size() ? down_run(rows_.experts[e + 1], task)
                                 : next < down_tasks()        ? down_run(rows_.experts[0], next)
                                                              : PanelRun();
      walk_panels(kernel_, down_, down_run(expert, task), following, down_rows_.at(expert.begin),
                  down_rows_.stride, expert.end - expert.begin,
                  [&](int64_t at, const GemmArgs& gemm, int64_t panel) {
                    const auto row = static_cast<size_t>(expert.begin + at);
                    const int64_t column = panel * kPanelCols;
                    kernel_.accumulate({gemm.c, gemm.c_stride, gemm.rows, gemm.panels * kPanelCols,
                                        shape_.bias ? bias + first * kPanelCols + column : nullptr,
                                        &rows_.tokens[row], &rows_.weights[row], acc + column, width});
                  });
    }
    const int64_t column = first * kPanelCols;
    const int64_t out_bytes = size_of(args_.hidden.dtype);
    kernel_.store({acc, width, tokens_, std::min(width, shape_.hidden - column),
                   static_cast<std::byte*>(args_.out) + (first_token_ * shape_.hidden + column) * out_bytes,
                   args_.hidden.dtype, shape_.hidden});
  }

 private:
  struct Block {
    const HostExpert* expert;
    int64_t first, panels;
  };

  Block gate_up_block(int64_t task) const {
    const int64_t first = task % gate_up_blocks() * tiling_.gate_up_panels;
    return {&rows_.experts[static_cast<size_t>(task / gate_up_blocks())], first,
            std::min(tiling_.gate_up_panels, gate_up_.panels - first)};
  }
  PanelRun gate_up_run(const Block& block) const {
    return {block.expert->weights + block.first * gate_up_.panel_bytes(), block.panels};
  }
  PanelRun down_run(const HostExpert& expert, int64_t task) const {
    const int64_t first = task * tiling_.down_panels;
    return {expert.weights + shape_.down_offset() + first * down_.panel_bytes(),
            std::min(tiling_.down_panels, down_.panels - first)};
  }
  void start(float* acc, const float* initial, int64_t column, int64_t width) const {
    std::fill_n(acc, tokens_ * width, 0.0f);
    if (!initial) return;
    const int64_t columns = std::min(width, shape_.hidden - column);
    for (int64_t token = 0; token < tokens_; ++token)
      std::copy_n(initial + (first_token_ + token) * shape_.hidden + column, columns, acc + token * width);
  }

  // The rows of A of one expert, together; a single one is used where it lies.
  Rows gather(int64_t row, int64_t rows) const {
    const int32_t* tokens = &rows_.tokens[static_cast<size_t>(row)];
    if (rows == 1) return {x_.at(*tokens), x_.stride};
    const Rows a{scratch().rows.reserve(static_cast<size_t>((rows + kRowSlack) * x_.stride)), x_.stride};
    for (int64_t r = 0; r < rows; ++r)
      std::memcpy(a.at(r), x_.at(tokens[r]), static_cast<size_t>(x_.stride - kStrideSlack));
    return a;
  }

  void activate(const HostExpert& expert, int64_t row, const GemmArgs& gemm, int64_t panel) const {
    const auto* bias = reinterpret_cast<const float*>(expert.weights + shape_.gate_up_bias_offset());
    const int64_t h_bytes = size_of(kernel_.h);
    kernel_.activate({gemm.c, gemm.c_stride, gemm.rows, gemm.panels, shape_.activation,
                      shape_.bias ? bias + panel * kPanelCols : nullptr,
                      h_.at(row) + panel * shape_.panel_width() * h_bytes, h_.stride / h_bytes});
    if (panel + gemm.panels < gate_up_.panels) return;
    // The padding that the down matrix reads beyond the last panel.
    const int64_t end = gate_up_.panels * shape_.panel_width();
    for (int r = 0; r < gemm.rows && end < down_.k_padded; ++r)
      std::fill_n(h_.at(row + r) + end * h_bytes, (down_.k_padded - end) * h_bytes, std::byte{0});
  }

  const LayerShape& shape_;
  const Kernel& kernel_;
  const FfnArgs& args_;
  const ChunkRows& rows_;
  const PackedMatrix gate_up_, down_;
  const int64_t first_token_, tokens_;
  const FfnTiling tiling_;
  Rows x_, h_, down_rows_;  // of A: tokens; rows of h as activated; as the down matrix takes them
};

using Clock = std::chrono::steady_clock;

int64_t ns_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// What the sums start from, and how long that was waited for.
struct Initial {
  const float* sums = nullptr;
  int64_t waited_ns = 0;
  bool is_known = false;

  void ask(const FfnArgs& args) {
    if (is_known || !args.initial) return;
    const auto start = Clock::now();
    sums = args.initial();
    waited_ns = ns_since(start);
    is_known = true;
  }
};

void run_chunk(const Chunk& chunk, const FfnArgs& args, Initial& initial, const ThreadPool& pool,
               int workers) {
  parallel_tasks(pool, workers, chunk.load_tasks(), [&](int64_t task, int64_t) { chunk.load(task); });
  parallel_tasks(
      pool, workers, chunk.gate_up_tasks(), [&](int64_t task, int64_t next) { chunk.gate_up(task, next); },
      chunk.gate_up_blocks());
  parallel_tasks(pool, workers, chunk.quantize_tasks(), [&](int64_t task, int64_t) { chunk.quantize(task); });
  initial.ask(args);
  parallel_tasks(
      pool, workers, chunk.down_tasks(),
      [&](int64_t task, int64_t next) { chunk.down(initial.sums, task, next); }, chunk.down_tasks());
}

void count(Layer& layer, const ChunkRows& done, int64_t tokens) {
  const auto add = [](std::atomic<int64_t>& counter, int64_t value) {
    counter.fetch_add(value, std::memory_order_relaxed);
  };
  const LayerShape& shape = layer.shape();
  const auto rows = std::ssize(done.tokens);
  add(layer.stats.tokens, tokens);
  add(layer.stats.rows, rows);
  add(layer.stats.experts_loaded, std::ssize(done.experts));
  add(layer.stats.weight_bytes, std::ssize(done.experts) * shape.expert_bytes());
  add(layer.stats.flops, 2 * rows * shape.hidden * shape.inter * (shape.activation.gated ? 3 : 2));
  for (const auto& expert : done.experts)
    add(layer.expert_rows[static_cast<size_t>(expert.index)], expert.end - expert.begin);
}

}  // namespace

int64_t expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const FfnArgs& args) {
  const auto start = Clock::now();
  thread_local ChunkRows rows;
  thread_local Buffers buffers;
  const LayerShape& shape = layer.shape();
  const int64_t chunks = std::max<int64_t>(1, ceil_div(args.tokens, tokens_of_chunk(shape, args.topk)));

  Initial initial;
  for (int64_t index = 0, first = 0; index < chunks && first < args.tokens; ++index) {
    const int64_t tokens = (args.tokens - first) / (chunks - index);
    rows.take(args, first, tokens);
    const int workers = is_serial(shape, std::ssize(rows.tokens)) ? 1 : pool.max_workers();
    run_chunk(Chunk(shape, kernel, args, rows, first, tokens, buffers, workers), args, initial, pool,
              workers);
    count(layer, rows, tokens);
    first += tokens;
  }
  for (PageBuffer* buffer : {&buffers.x, &buffers.h, &buffers.quantized_h})
    if (buffer->size() > kKeptBytes) *buffer = PageBuffer();
  const int64_t busy_ns = ns_since(start) - initial.waited_ns;
  layer.stats.calls.fetch_add(1, std::memory_order_relaxed);
  layer.stats.busy_ns.fetch_add(busy_ns, std::memory_order_relaxed);
  return busy_ns;
}

void all_on_host(const Layer& layer, const Routing& routing, std::vector<HostExpert>& experts) {
  experts.clear();
  for (const auto& one : routing.active) experts.push_back({one, layer.expert(one.index)});
}

int64_t expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const RowSource& hidden,
                   const RouterOutput& router, int64_t tokens, void* out) {
  Routing routing;
  routing.assign(router, tokens, layer.shape().experts);
  std::vector<HostExpert> experts;
  all_on_host(layer, routing, experts);
  return expert_ffn(layer, kernel, pool, {hidden, tokens, router.topk, routing, experts, out, {}});
}

}  // namespace trimoe::cpu
