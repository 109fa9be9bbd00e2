// One registered expert layer: its shape, where its packed experts lie, what it has done so far.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "common/memory.h"
#include "cpu/kernel/kernel.h"
#include "packed/expert_shape.h"

namespace trimoe {

struct LayerShape : ExpertShape {
  int64_t experts = 0;
  bool int8_activations = false;  // int4 only: whether rows are quantised too (W4A8)

  void validate() const;

  // Rows of A for the two matrices.
  RowShape gate_up_rows() const { return rows_of(gate_up()); }
  RowShape down_rows() const { return rows_of(down()); }

  int64_t layer_bytes() const { return experts * expert_bytes(); }

 private:
  RowShape rows_of(const PackedMatrix& matrix) const {
    return {matrix.k_padded, matrix.groups, weights.group ? weights.group : matrix.k_padded,
            facts(weights.format).zero};
  }
};

// What a layer has done; read at any time, so every counter is atomic.
struct LayerStats {
  std::atomic<int64_t> calls{0};
  std::atomic<int64_t> tokens{0};
  std::atomic<int64_t> rows{0};            // (token, expert) pairs computed
  std::atomic<int64_t> experts_loaded{0};  // sum over calls of the experts that had tokens
  std::atomic<int64_t> weight_bytes{0};    // packed bytes of those experts
  std::atomic<int64_t> flops{0};
  std::atomic<int64_t> busy_ns{0};
};

class Layer {
 public:
  // Owns zeroed memory for the packed experts.
  explicit Layer(const LayerShape& shape);
  // Uses packed experts that lie at `data` (64-byte aligned); `owner` keeps that memory alive.
  Layer(const LayerShape& shape, const std::byte* data, std::shared_ptr<void> owner);

  const LayerShape& shape() const { return shape_; }
  const std::byte* expert(int64_t index) const { return data_ + index * shape_.expert_bytes(); }
  const std::byte* data() const { return data_; }
  std::byte* mutable_expert(int64_t index);

  LayerStats stats;
  std::vector<std::atomic<int64_t>> expert_rows;  // rows per expert since the last reset
  void reset_stats();

 private:
  LayerShape shape_;
  PageBuffer owned_;
  std::shared_ptr<void> owner_;
  const std::byte* data_;
};

}  // namespace trimoe
