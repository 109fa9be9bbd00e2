// trimoe._ndp: the DIMM-NDP emulator; see trimoe.ndp for the typed wrappers.
#include "bindings/ndp_py.h"

#include "bindings/errors_py.h"

PYBIND11_MODULE(_ndp, m) {
  m.doc() = "The DIMM-NDP emulator; see trimoe.ndp for the typed wrappers.";
  trimoe::ndp::bind_core(m);
  trimoe::ndp::bind_dram(m);
  trimoe::ndp::bind_expert(m);
  trimoe::ndp::bind_fleet(m);
  trimoe::ndp::bind_sharing(m);
  trimoe::translate_errors();
}
