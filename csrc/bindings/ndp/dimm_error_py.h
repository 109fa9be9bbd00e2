// A DIMM that failed, as Python has it: trimoe._ndp.DimmError, with its number, the code and those of the
// others.
#pragma once

#include <pybind11/pybind11.h>

#include "ndp/dimm/status.h"

namespace trimoe::ndp {

inline void set_dimm_error(const DimmError& error) {
  namespace py = pybind11;
  const py::object type = py::module_::import("trimoe._ndp").attr("DimmError");
  const py::object made = type(error.what());
  py::dict failures;
  for (const auto& [dimm, status] : error.failures) failures[py::int_(dimm)] = name_of(status);
  made.attr("dimm") = error.dimm;
  made.attr("code") = name_of(error.status);
  made.attr("failures") = failures;
  PyErr_SetObject(type.ptr(), made.ptr());
}

}  // namespace trimoe::ndp
