// The core's arithmetic on one expert, for trimoe._ndp.
#include <cstring>
#include <vector>

#include <pybind11/stl.h>

#include "bindings/core_expert_py.h"
#include "bindings/ndp_py.h"
#include "ndp/core/core.h"
#include "ndp/core/reference.h"

namespace trimoe::ndp {
namespace {

py::buffer_info contiguous(const py::buffer& buffer, const char* expected) {
  py::buffer_info info = buffer.request();
  check(PyBuffer_IsContiguous(info.view(), 'C'), expected, "memory with gaps", "a contiguous copy");
  return info;
}

// weights: one packed expert; activations: bf16 [tokens, hidden]; onto: fp32 of the result's shape, or None.
py::bytes core_ffn(const py::buffer& weights, const py::buffer& activations, int64_t hidden, int64_t inter,
                   const std::string& number, int32_t group, const std::string& activation, bool gated,
                   bool bias, float alpha, float limit, int ranks, float scale, const py::object& onto) {
  const py::buffer_info packed = contiguous(weights, "the bytes of a packed expert");
  const py::buffer_info rows = contiguous(activations, "bf16 activations [tokens, hidden]");
  CoreExpert expert;
  expert.number = number_named(number);
  expert.shape = {hidden,
                  inter,
                  {packed_format(expert.number), group},
                  {activation_named(activation), gated, alpha, limit},
                  bias};
  validate(expert.shape, expert.number);
  check(packed.size * packed.itemsize == expert.shape.expert_bytes(), "all bytes of the packed expert",
        packed.size * packed.itemsize, "its part of ExpertLayer.memory");
  const int64_t row_bytes = hidden * 2, tokens = rows.size * rows.itemsize / row_bytes;
  check(rows.size * rows.itemsize == tokens * row_bytes, "whole rows of bf16 activations [tokens, hidden]",
        rows.size * rows.itemsize, "2 * hidden bytes a token");
  expert.data = static_cast<const std::byte*>(packed.ptr);
  std::vector<float> result(static_cast<size_t>(tokens * hidden));
  const bool accumulate = !onto.is_none();
  if (accumulate) {
    const py::buffer_info before = contiguous(onto.cast<py::buffer>(), "fp32 results [tokens, hidden]");
    const auto bytes = static_cast<py::ssize_t>(result.size() * sizeof(float));
    check(before.size * before.itemsize == bytes, "as many results to add to as come out",
          before.size * before.itemsize, "fp32 [tokens, hidden]");
    std::memcpy(result.data(), before.ptr, static_cast<size_t>(bytes));
  }
  {
    const py::gil_scoped_release unlocked;
    std::vector<Bf16> x(result.size());  // at an address that is even
    std::memcpy(x.data(), rows.ptr, static_cast<size_t>(tokens * row_bytes));
    expert_ffn(expert, ranks, x.data(), tokens, scale, accumulate, result.data());
  }
  return {reinterpret_cast<const char*>(result.data()), result.size() * sizeof(float)};
}

template <typename T>
py::bytes as_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// As core_ffn; fp64 values and bounds, [tokens, hidden] each.
std::pair<py::bytes, py::bytes> core_reference(const py::buffer& weights, const py::buffer& activations,
                                               const CoreExpertShape& shape, double scale) {
  const py::buffer_info packed = contiguous(weights, "the bytes of a packed expert");
  const py::buffer_info rows = contiguous(activations, "bf16 activations [tokens, hidden]");
  check(packed.size * packed.itemsize == shape.shape.expert_bytes(), "all bytes of the packed expert",
        packed.size * packed.itemsize, "draw_expert()");
  const int64_t row_bytes = shape.shape.hidden * 2, tokens = rows.size * rows.itemsize / row_bytes;
  check(rows.size * rows.itemsize == tokens * row_bytes, "whole rows of bf16 activations [tokens, hidden]",
        rows.size * rows.itemsize, "2 * hidden bytes a token");
  const ReferenceResult found = [&] {
    const py::gil_scoped_release unlocked;
    std::vector<Bf16> x(static_cast<size_t>(tokens * shape.shape.hidden));
    std::memcpy(x.data(), rows.ptr, static_cast<size_t>(tokens * row_bytes));
    const CoreExpert expert{shape.shape, shape.number, static_cast<const std::byte*>(packed.ptr)};
    return reference_ffn(expert, x.data(), tokens, scale);
  }();
  return {as_bytes(found.values), as_bytes(found.bounds)};
}

}  // namespace

void bind_core(py::module_& m) {
  m.def("core_ffn", &core_ffn, py::arg("weights"), py::arg("activations"), py::arg("hidden"),
        py::arg("inter"), py::arg("number"), py::arg("group"), py::arg("activation"), py::arg("gated"),
        py::arg("bias"), py::arg("alpha"), py::arg("limit"), py::arg("ranks"), py::arg("scale"),
        py::arg("onto"));
  m.def("core_reference", &core_reference, py::arg("weights"), py::arg("activations"), py::arg("shape"),
        py::arg("scale"));
  m.def(
      "draw_expert",
      [](const CoreExpertShape& shape, uint64_t seed) {
        return as_bytes(draw_expert(shape.shape, shape.number, seed));
      },
      py::arg("shape"), py::arg("seed"));
  m.def(
      "draw_rows", [](int64_t count, uint64_t seed) { return as_bytes(draw_rows(count, seed)); },
      py::arg("count"), py::arg("seed"));
}

}  // namespace trimoe::ndp
