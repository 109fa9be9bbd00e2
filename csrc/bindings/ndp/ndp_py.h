// The parts of trimoe._ndp, one file each.
#pragma once

#include <pybind11/pybind11.h>

namespace trimoe::ndp {

namespace py = pybind11;

void bind_core(py::module_& m);
void bind_dram(py::module_& m);
void bind_expert(py::module_& m);
void bind_fleet(py::module_& m);
void bind_sharing(py::module_& m);

}  // namespace trimoe::ndp
