// trimoe.layer.source.StridedView as the core sees it: matrices to pack, tensors to compute on.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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

// Where the elements lie, whatever they are; a vector has one column.
inline SourceArray array_of(const py::object& view) {
  const auto shape = view.attr("shape").cast<std::vector<int64_t>>();
  const auto strides = view.attr("strides").cast<std::vector<int64_t>>();
  check(shape.size() == strides.size() && (shape.size() == 1 || shape.size() == 2), "a matrix or a vector",
        std::to_string(shape.size()) + " dimensions", "one expert of a stack");
  SourceArray array;
  array.data = reinterpret_cast<const void*>(view.attr("address").cast<uintptr_t>());
  const bool is_vector = shape.size() == 1;
  array.rows = shape[0];
  array.cols = is_vector ? 1 : shape[1];
  array.row_stride = strides[0];
  array.col_stride = is_vector ? 0 : strides[1];
  return array;
}

inline SourceView view_of(const py::object& view) {
  SourceView result;
  if (view.is_none()) return result;
  static_cast<SourceArray&>(result) = array_of(view);
  result.type = source_type_named(view.attr("dtype").cast<std::string>());
  result.scale = view_of(view.attr("scale"));
  std::tie(result.block_rows, result.block_cols) = view.attr("block").cast<std::pair<int64_t, int64_t>>();
  return result;
}

inline void check_readable(const SourceArray& array, int64_t element_bytes, const char* expected) {
  const auto address = reinterpret_cast<uintptr_t>(array.data);
  check(array.rows >= 0 && array.cols >= 0, expected, "a negative size", "the sizes of the tensor");
  check(address != 0 || array.rows * array.cols == 0, expected, "a null address",
        "the address of the tensor's first element");
  check(address % static_cast<uintptr_t>(element_bytes) == 0, expected, "an address between two elements",
        "a tensor aligned to its elements");
}

// The first three source types are those of tensors.
inline DType dtype_of(const SourceArray& tensor) { return static_cast<DType>(tensor.type); }

// A tensor that kernels read in place.
inline SourceArray tensor_of(const py::object& source, const char* expected) {
  const SourceView view = view_of(source);
  check(
      view.type <= SourceType::kF16 && !view.scale.data, expected,
      [&] {
        const std::string name(kSourceTypeNames[static_cast<size_t>(view.type)]);
        return view.scale.data ? name + " with scales" : name;
      },
      "tensor.to(torch.bfloat16)");
  check_readable(view, size_of(dtype_of(view)), expected);
  return view;
}

// Throws when [out, out + bytes) shares memory with elements of `size` bytes.
inline void check_apart(uintptr_t out, int64_t bytes, const SourceArray& array, int64_t size) {
  if (array.rows * array.cols == 0 || bytes == 0) return;
  const int64_t down = (array.rows - 1) * array.row_stride, across = (array.cols - 1) * array.col_stride;
  const auto start = reinterpret_cast<intptr_t>(array.data);
  const intptr_t first = start + (std::min<int64_t>(down, 0) + std::min<int64_t>(across, 0)) * size;
  const intptr_t end = start + (std::max<int64_t>(down, 0) + std::max<int64_t>(across, 0) + 1) * size;
  check(end <= static_cast<intptr_t>(out) || static_cast<intptr_t>(out) + bytes <= first,
        "an output apart from the inputs", "one that overlaps them", "a new tensor");
}

// The ids of a router, and the bytes of one; no weights have their types.
inline std::pair<SourceArray, int64_t> ids_of(const py::object& view) {
  const auto dtype = view.attr("dtype").cast<std::string>();
  check(dtype == "int32" || dtype == "int64", "ids of int32 or int64", dtype, "int64");
  return {array_of(view), dtype == "int64" ? 8 : 4};
}

inline RouterOutput router_of(const SourceArray& ids, int64_t id_bytes, const SourceArray& weights,
                              int64_t tokens) {
  const auto shape = [](const SourceArray& array) {
    return "[" + std::to_string(array.rows) + ", " + std::to_string(array.cols) + "]";
  };
  check(ids.rows == tokens, "ids of shape [T, K]", [&] { return shape(ids); }, "one row per token");
  check(
      weights.rows == ids.rows && weights.cols == ids.cols, "weights of the shape of ids",
      [&] { return shape(weights); }, "one weight per id");
  check_pairs(ids.rows, ids.cols);
  check_readable(ids, id_bytes, "ids that can be read");
  return {ids.data,          id_bytes == 8,      ids.row_stride,     ids.col_stride, weights.data,
          dtype_of(weights), weights.row_stride, weights.col_stride, ids.cols};
}

}  // namespace trimoe::cpu
