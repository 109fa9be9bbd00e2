// trimoe._ndp: the DIMM-NDP emulator; see trimoe.ndp for the typed wrappers.
#include "bindings/ndp/ndp_py.h"

#include "bindings/errors_py.h"
#include "bindings/ndp/dimm_error_py.h"

PYBIND11_MODULE(_ndp, m) {
  m.doc() = "The DIMM-NDP emulator; see trimoe.ndp for the typed wrappers.";
  trimoe::ndp::bind_core(m);
  trimoe::ndp::bind_dram(m);
  trimoe::ndp::bind_expert(m);
  trimoe::ndp::bind_fleet(m);
  trimoe::ndp::bind_sharing(m);
  trimoe::translate_errors();
  // Later, so that it is asked before.
  pybind11::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const trimoe::ndp::DimmError& error) {
      trimoe::ndp::set_dimm_error(error);
    }
  });
}
