// A fleet as Python holds it; ndp_dimm_py.cpp binds one DIMM of it by descriptors, ndp_fleet_py.cpp the rest.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "bindings/ndp_py.h"
#include "common/error.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {

struct PyFleet {
  std::shared_ptr<Fleet> fleet;
  std::map<int, std::deque<std::shared_ptr<const void>>>
      kept;  // by DIMM: what its commands read and write later
};

void bind_dimm(py::class_<PyFleet>& fleet);

// Memory without gaps, that stays where it is as long as the result is kept.
inline py::buffer_info contiguous(const py::handle& object, bool writable = false) {
  check(PyObject_CheckBuffer(object.ptr()) != 0, "a buffer", std::string(py::str(py::type::of(object))),
        "bytes, bytearray or a NumPy array");
  Py_buffer view;
  const bool is_writable = PyObject_GetBuffer(object.ptr(), &view, PyBUF_WRITABLE) == 0;
  if (is_writable)
    PyBuffer_Release(&view);
  else
    PyErr_Clear();
  check(is_writable || !writable, "a buffer that can be written to", "a read-only one", "a bytearray");
  py::buffer_info info = py::reinterpret_borrow<py::buffer>(object).request();
  check(PyBuffer_IsContiguous(info.view(), 'C') != 0, "a contiguous buffer", "memory with gaps",
        "a copy of it");
  return info;
}

inline std::span<const std::byte> bytes_in(const py::buffer_info& info) {
  return {static_cast<const std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
}

inline size_t index_of(std::span<const std::string_view> names, const std::string& name,
                       const char* expected) {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return i;
  throw Error(expected, name, std::string(names[0]));
}

}  // namespace trimoe::ndp
