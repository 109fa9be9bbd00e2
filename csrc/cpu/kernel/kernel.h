// The kernel interface: what one instruction set offers for one weight format.
// Plain data only: this header is read by code compiled for any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "cpu/kernel/fetch.h"
#include "packed/activation.h"
#include "packed/format.h"
#include "packed/layout.h"

namespace trimoe {

inline constexpr int kMaxRows = 128;  // rows of one gemm call, of any kernel
inline constexpr int kMaxPanels = 4;  // panels of one gemm call
inline constexpr int kRowSlack = 15;  // rows behind the last that a kernel may read and write

// Rows of a [*, cols] tensor of any float type and any strides (in elements).
struct RowSource {
  const void* data;
  DType dtype;
  int64_t row_stride;
  int64_t col_stride;
  int64_t cols;
};

// How a kernel stores its rows of A. The integer types are quantised per row: behind the k_padded
// elements of a row lie its scale (float) and per group of k an offset (int32): minus the zero of the
// weights' codes times the sum of the row's codes, where the sum of products starts.
enum class RowType : int32_t {
  kF32,
  kBf16,
  kInt8,   // the middle two of every four k swapped, as in the weights
  kInt16,  // codes of 8 bits, natural order
};

constexpr int64_t size_of(RowType type) { return type == RowType::kF32 ? 4 : type == RowType::kInt8 ? 1 : 2; }
constexpr bool is_quantized(RowType type) { return type == RowType::kInt8 || type == RowType::kInt16; }

// Shape of the rows of A that belong to one packed matrix.
struct RowShape {
  int64_t k_padded;
  int64_t groups;
  int64_t group_k;  // k of one group; k_padded when there is one group
  int32_t zero;     // of the weights' codes
};

constexpr RowShape row_shape(const PackedMatrix& matrix, WeightFormat weights) {
  return {matrix.k_padded, matrix.groups, weights.group ? weights.group : matrix.k_padded,
          facts(weights.format).zero};
}

// Bytes of one row of A, its scale and offsets included.
constexpr int64_t row_bytes(RowType type, const RowShape& shape) {
  const int64_t quantized = is_quantized(type) ? 4 + 4 * shape.groups : 0;
  return (shape.k_padded * size_of(type) + quantized + 63) / 64 * 64;
}

// Rows of `source` from first_row on -> rows of A, zero-padded to k_padded.
struct LoadArgs {
  RowSource source;
  int64_t first_row;
  int64_t rows;
  RowShape shape;
  std::byte* a;
  int64_t a_stride;  // bytes
};

// C[rows, panels * 32] = A[rows, k_padded] * W, in fp32, scales applied.
struct GemmArgs {
  const std::byte* a;
  int64_t a_stride;  // bytes
  int rows;          // 1..max_rows of the kernel
  const std::byte* w;
  int64_t panel_bytes;
  int64_t k_tiles;
  int64_t k_begin, k_end;  // k tiles to multiply: all, or in turn parts of whole groups (Kernel::blocks_k)
  int64_t group_lines;     // lines of one column tile that share a scale
  int panels;              // 1..kMaxPanels
  float* c;                // its contents are private to the kernel while k is split
  int64_t c_stride;
  FetchCursor* next;  // what later calls will read, fetched meanwhile; never null
};

// What every call on a matrix has in common: all of k.
constexpr GemmArgs gemm_on(const PackedMatrix& matrix) {
  GemmArgs args{};
  args.panel_bytes = matrix.panel_bytes();
  args.k_tiles = args.k_end = matrix.k_tiles;
  args.group_lines = matrix.group_lines;
  return args;
}

// h[rows, columns of these panels] = act(C + bias).
struct ActivateArgs {
  const float* c;
  int64_t c_stride;
  int rows;
  int panels;
  ActivationSpec spec;
  const float* bias;  // [panels * 32] in panel order, or null
  void* h;
  int64_t h_stride;  // elements
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
  RowType a;
  DType h;       // what activate() writes; rows of A themselves when A is not quantised
  int max_rows;  // of one gemm call: as many as share the work of decoding weights
  // May touch up to kRowSlack rows behind the last one, whose results nobody reads.
  void (*load_rows)(const LoadArgs& args);
  void (*gemm)(const GemmArgs& args);
  void (*activate)(const ActivateArgs& args);
  void (*accumulate)(const AccumulateArgs& args);
  void (*store)(const StoreArgs& args);
  int few_rows = 6;       // up to here memory is the limit: several panels at once, in as many streams
  bool blocks_k = false;  // needs A blocked to the second-level cache: k is split
  // Called on a thread before its first gemm and after its last one; null: nothing to do.
  void (*enter)() = nullptr;
  void (*leave)() = nullptr;
};

}  // namespace trimoe
