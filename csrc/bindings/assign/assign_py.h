// The parts of trimoe._assign, one file each.
#pragma once

#include <pybind11/pybind11.h>

namespace trimoe::assign {

namespace py = pybind11;

void bind_clock(py::module_& m);

}  // namespace trimoe::assign
