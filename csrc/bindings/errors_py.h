// The core's errors as Python has them: ValueError with the line that says what to do.
#pragma once

#include <pybind11/pybind11.h>

#include "common/error.h"

namespace trimoe {

inline void translate_errors() {
  pybind11::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });
}

}  // namespace trimoe
