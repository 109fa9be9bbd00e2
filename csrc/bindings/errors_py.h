// The core's errors as Python has them: those of trimoe.errors, with the same fields.
#pragma once

#include <exception>
#include <iterator>
#include <string>
#include <system_error>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/error.h"

namespace trimoe {

// Sets trimoe.errors.<type> as the error of this thread. more: fields beside the three.
inline void set_error(const char* type, const Error& error, const pybind11::dict& more = {}) {
  namespace py = pybind11;
  const auto text = [](const std::string& bytes) {  // which may come from the environment
    return py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(bytes.data(), std::ssize(bytes), "backslashreplace"));
  };
  const py::module_ errors = py::module_::import("trimoe.errors");
  const auto* unknown = dynamic_cast<const UnknownName*>(&error);
  const py::object got = text(error.got);
  const py::object hint = unknown ? errors.attr("nearest")(got, unknown->names) : text(error.hint);
  const py::object made = errors.attr(type)(py::arg("expected") = text(error.expected), py::arg("got") = got,
                                            py::arg("hint") = hint, **more);
  PyErr_SetObject(py::type::of(made).ptr(), made.ptr());
}

inline void translate_errors() {
  pybind11::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Failure& error) {
      set_error("FailureError", error);
    } catch (const Error& error) {
      set_error("InputError", error);
    } catch (const std::system_error& error) {
      set_error("FailureError", Failure("the system to give a thread", error.what(),
                                        "fewer threads, or higher limits (ulimit -u, ulimit -v)"));
    }
  });
}

}  // namespace trimoe
