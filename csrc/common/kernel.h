// The kernel interface: what one instruction set offers for one weight format.
// Plain data only: this header is read by code compiled for any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/activation.h"
#include "common/dtype.h"

namespace trimoe {

inline constexpr int kMaxRows = 32;   // rows of one gemm call, of any kernel
inline constexpr int kMaxPanels = 4;  // panels of one gemm call

// Rows of a [*, cols] tensor of any float type and any strides (in elements), picked by index.
struct RowSource {
  const void* data;
  DType dtype;
  int64_t row_stride;
  int64_t col_stride;
  int64_t cols;
};

// C[rows, panels * 32] = A[rows, k_padded] * W, in fp32.
struct GemmArgs {
  const void* a;  // rows in the kernel's activation type, zero-padded to k_padded
  int64_t a_stride;
  int rows;  // 1..max_rows of the kernel
  const std::byte* w;
  int64_t panel_bytes;
  int64_t k_tiles;
  int panels;  // 1..kMaxPanels
  float* c;
  int64_t c_stride;
  const std::byte* prefetch;  // fetched into L2 meanwhile: what the next calls will read
  int prefetch_lines;         // 64-byte lines of it per step; 0: none
};

// h[rows, columns of these panels] = act(C + bias), written in the kernel's activation type.
struct ActivateArgs {
  const float* c;
  int64_t c_stride;
  int rows;
  int panels;
  ActivationSpec spec;
  const float* bias;  // [panels * 32] in panel order, or null
  void* h;
  int64_t h_stride;
};

// acc[rows[r], columns] += weight[r] * (C[r, columns] + bias)
struct AccumulateArgs {
  const float* c;
  int64_t c_stride;
  int rows;
  int64_t cols;
  const float* bias;  // [cols] or null
  const int32_t* targets;
  const float* weights;
  float* acc;
  int64_t acc_stride;
};

// out[row, 0..cols) = acc[row, 0..cols), converted to the type of the output tensor.
struct StoreArgs {
  const float* acc;
  int64_t acc_stride;
  int64_t rows;
  int64_t cols;
  void* out;
  DType dtype;
  int64_t out_stride;
};

struct Kernel {
  DType weights;
  DType activations;  // storage type of A and h; values are always rounded as the format asks
  int max_rows;       // of one gemm call: what the registers or tiles hold at once
  void (*load_rows)(const RowSource& source, const int32_t* indices, int rows, void* a, int64_t a_stride,
                    int64_t k_padded);
  void (*gemm)(const GemmArgs& args);
  void (*activate)(const ActivateArgs& args);
  void (*accumulate)(const AccumulateArgs& args);
  void (*store)(const StoreArgs& args);
};

}  // namespace trimoe
