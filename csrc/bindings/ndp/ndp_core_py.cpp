// The core's arithmetic on one expert, for trimoe._ndp.
#include <cstring>
#include <vector>

#include <pybind11/stl.h>

#include "bindings/cpu/buffer_py.h"
#include "bindings/ndp/core_expert_py.h"
#include "bindings/ndp/ndp_py.h"
#include "ndp/core/core.h"
#include "ndp/core/reference.h"

namespace trimoe::ndp {
namespace {

template <typename T>
py::bytes as_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// One packed expert and its activations, bf16 [tokens, hidden].
struct Inputs {
  py::buffer_info packed;
  CoreExpert expert;
  std::vector<Bf16> x;  // at an address that is even
  int64_t tokens;

  Inputs(const py::object& weights, const py::object& activations, const CoreExpertShape& shape)
      : packed(contiguous(weights)), expert{shape.shape, shape.number, bytes_in(packed).data()} {
    check(std::ssize(bytes_in(packed)) == shape.shape.expert_bytes(), "all bytes of the packed expert",
          std::ssize(bytes_in(packed)), "its part of ExpertLayer.memory");
    const py::buffer_info rows = contiguous(activations);
    const auto bytes = bytes_in(rows);
    const int64_t row_bytes = shape.shape.hidden * 2;
    tokens = std::ssize(bytes) / row_bytes;
    check(std::ssize(bytes) == tokens * row_bytes, "whole rows of bf16 activations [tokens, hidden]",
          std::ssize(bytes), "2 * hidden bytes a token");
    x.resize(static_cast<size_t>(tokens * shape.shape.hidden));
    std::memcpy(x.data(), bytes.data(), bytes.size());
  }
};

// onto: fp32 of the result's shape, or None.
py::bytes core_ffn(const py::object& weights, const py::object& activations, const CoreExpertShape& shape,
                   int ranks, float scale, const py::object& onto) {
  const Inputs inputs(weights, activations, shape);
  std::vector<float> result(inputs.x.size());
  if (!onto.is_none()) {
    const py::buffer_info info = contiguous(onto);
    const auto before = bytes_in(info);
    check(before.size() == result.size() * sizeof(float), "as many results to add to as come out",
          before.size(), "fp32 [tokens, hidden]");
    std::memcpy(result.data(), before.data(), before.size());
  }
  {
    const py::gil_scoped_release unlocked;
    expert_ffn(inputs.expert, ranks, inputs.x.data(), inputs.tokens, scale, !onto.is_none(), result.data());
  }
  return as_bytes(result);
}

// fp64 values and bounds, [tokens, hidden] each.
std::pair<py::bytes, py::bytes> core_reference(const py::object& weights, const py::object& activations,
                                               const CoreExpertShape& shape, double scale) {
  const Inputs inputs(weights, activations, shape);
  const ReferenceResult found = [&] {
    const py::gil_scoped_release unlocked;
    return reference_ffn(inputs.expert, inputs.x.data(), inputs.tokens, scale);
  }();
  return {as_bytes(found.values), as_bytes(found.bounds)};
}

}  // namespace

void bind_core(py::module_& m) {
  m.def("core_ffn", &core_ffn, py::arg("weights"), py::arg("activations"), py::arg("shape"), py::arg("ranks"),
        py::arg("scale"), py::arg("onto"));
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
