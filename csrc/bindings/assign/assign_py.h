// The parts of trimoe._assign, one file each.
#pragma once

#include <pybind11/pybind11.h>

namespace trimoe {

namespace py = pybind11;

namespace clock {
void bind_clock(py::module_& m);
}  // namespace clock

}  // namespace trimoe
