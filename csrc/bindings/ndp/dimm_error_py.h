// A DIMM that failed, as Python has it: trimoe.errors.NdpError, with its number and the codes of all that
// failed.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/errors_py.h"
#include "ndp/dimm/status.h"

namespace trimoe::ndp {

inline void set_dimm_error(const DimmError& error) {
  namespace py = pybind11;
  py::dict failures;
  for (const auto& [dimm, status] : error.failures) failures[py::int_(dimm)] = name_of(status);
  set_error("NdpError", error, py::dict(py::arg("dimm") = error.dimm, py::arg("failures") = failures));
}

}  // namespace trimoe::ndp
