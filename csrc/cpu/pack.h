// Packing: brings weights of any source layout into the packed layout, once.
#pragma once

#include "cpu/layer.h"

namespace trimoe::cpu {

// A matrix [rows, cols] or vector [rows, 1] in memory, any strides (in elements), any alignment.
struct SourceView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 0;
};

// One expert as the model defines it: gate and up [I, H], down [H, I], biases [I], [I], [H].
// Gate is absent without a gate; biases are absent unless the shape has them.
struct ExpertSource {
  SourceView gate, up, down;
  SourceView gate_bias, up_bias, down_bias;
};

// Writes one expert's block; throws Error for a part that is missing or of another shape. Thread-safe for
// different experts of one layer.
void pack_expert(const LayerShape& shape, const ExpertSource& source, std::byte* expert);

}  // namespace trimoe::cpu
