// trimoe.layer.source.Source as the core sees it: matrices to pack, tensors to compute on.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/names.h"
#include "cpu/ffn/route.h"
#include "packed/pack/pack.h"

namespace trimoe::cpu {

namespace py = pybind11;

inline SourceType source_type_named(const std::string& name) {
  return static_cast<SourceType>(index_of(kSourceTypeNames, name, "a source's type"));
}

// trimoe.layer.source.Source: (address, dtype, rows, cols, row stride, column stride, owner, then the
// Source of the scales or None, rows and columns of a block).
using SourceTuple = std::tuple<uintptr_t, std::string, int64_t, int64_t, int64_t, int64_t, py::object,
                               py::object, int64_t, int64_t>;

inline SourceView view_of(const py::object& source) {
  SourceView view;
  if (source.is_none()) return view;
  const auto [address, type, rows, cols, row_stride, col_stride, owner, scale, block_rows, block_cols] =
      source.cast<SourceTuple>();
  static_cast<SourceArray&>(view) = {
      reinterpret_cast<const void*>(address), source_type_named(type), rows, cols, row_stride, col_stride};
  view.scale = view_of(scale);
  view.block_rows = block_rows;
  view.block_cols = block_cols;
  return view;
}

// A tensor that kernels read in place.
struct Tensor {
  const void* data;
  DType dtype;
  int64_t rows, cols, row_stride, col_stride;
};

inline void check_readable(uintptr_t address, int64_t rows, int64_t cols, int64_t bytes,
                           const char* expected) {
  check(rows >= 0 && cols >= 0, expected, "a negative size", "the sizes of the tensor");
  check(address != 0 || rows * cols == 0, expected, "a null address",
        "the address of the tensor's first element");
  check(address % static_cast<uintptr_t>(bytes) == 0, expected, "an address between two elements",
        "a tensor aligned to its elements");
}

inline Tensor tensor_of(const py::object& source, const char* expected) {
  const SourceView view = view_of(source);
  check(
      view.type <= SourceType::kF16 && !view.scale.data, expected,
      [&] {
        const std::string name(kSourceTypeNames[static_cast<size_t>(view.type)]);
        return view.scale.data ? name + " with scales" : name;
      },
      "tensor.to(torch.bfloat16)");
  const auto dtype = static_cast<DType>(view.type);  // the first three are the same
  check_readable(reinterpret_cast<uintptr_t>(view.data), view.rows, view.cols, size_of(dtype), expected);
  return {view.data, dtype, view.rows, view.cols, view.row_stride, view.col_stride};
}

// Throws when [out, out + bytes) shares memory with elements of `size` bytes at any strides.
inline void check_apart(uintptr_t out, int64_t bytes, const void* data, int64_t rows, int64_t cols,
                        int64_t row_stride, int64_t col_stride, int64_t size) {
  if (rows * cols == 0 || bytes == 0) return;
  const int64_t down = (rows - 1) * row_stride, across = (cols - 1) * col_stride;
  const auto start = reinterpret_cast<intptr_t>(data);
  const intptr_t first = start + (std::min<int64_t>(down, 0) + std::min<int64_t>(across, 0)) * size;
  const intptr_t end = start + (std::max<int64_t>(down, 0) + std::max<int64_t>(across, 0) + 1) * size;
  check(end <= static_cast<intptr_t>(out) || static_cast<intptr_t>(out) + bytes <= first,
        "an output apart from the inputs", "one that overlaps them", "a new tensor");
}

inline RouterOutput router_of(const py::object& ids, const Tensor& weights, int64_t tokens) {
  const auto [address, type, rows, cols, row_stride, col_stride, owner, scale, block_rows, block_cols] =
      ids.cast<SourceTuple>();
  check(type == "int32" || type == "int64", "ids of int32 or int64", type, "int64");
  const auto shape = [](int64_t n, int64_t k) {
    return "[" + std::to_string(n) + ", " + std::to_string(k) + "]";
  };
  check(rows == tokens, "ids of shape [T, K]", [&] { return shape(rows, cols); }, "one row per token");
  check(
      weights.rows == rows && weights.cols == cols, "weights of the shape of ids",
      [&] { return shape(weights.rows, weights.cols); }, "one weight per id");
  check_pairs(rows, cols);
  check_readable(address, rows, cols, type == "int64" ? 8 : 4, "ids that can be read");
  return {reinterpret_cast<const void*>(address),
          type == "int64",
          row_stride,
          col_stride,
          weights.data,
          weights.dtype,
          weights.row_stride,
          weights.col_stride,
          cols};
}

}  // namespace trimoe::cpu
