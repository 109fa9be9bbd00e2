// Memory that Python hands over: bytes, bytearrays, arrays.
#pragma once

#include <span>
#include <string>

#include <pybind11/pybind11.h>

#include "common/error.h"

namespace trimoe {

// Memory without gaps, that stays where it is as long as the result is kept.
inline pybind11::buffer_info contiguous(const pybind11::handle& object, bool writable = false) {
  check(PyObject_CheckBuffer(object.ptr()) != 0, "a buffer",
        std::string(pybind11::str(pybind11::type::of(object))), "bytes, bytearray or a NumPy array");
  Py_buffer view;
  const bool is_writable = PyObject_GetBuffer(object.ptr(), &view, PyBUF_WRITABLE) == 0;
  if (is_writable)
    PyBuffer_Release(&view);
  else
    PyErr_Clear();
  check(is_writable || !writable, "a buffer that can be written to", "a read-only one", "a bytearray");
  pybind11::buffer_info info = pybind11::reinterpret_borrow<pybind11::buffer>(object).request();
  check(PyBuffer_IsContiguous(info.view(), 'C') != 0, "a contiguous buffer", "memory with gaps",
        "a copy of it");
  return info;
}

inline std::span<const std::byte> bytes_in(const pybind11::buffer_info& info) {
  return {static_cast<const std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
}

}  // namespace trimoe
