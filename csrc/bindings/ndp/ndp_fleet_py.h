// A fleet as Python holds it; ndp_dimm_py.cpp binds one DIMM of it by descriptors, ndp_fleet_py.cpp the rest.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "bindings/cpu/buffer_py.h"
#include "bindings/ndp/ndp_py.h"
#include "common/names.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {

struct PyFleet {
  std::shared_ptr<Fleet> fleet;
  std::map<int, std::deque<std::shared_ptr<const void>>>
      kept;  // by DIMM: what its commands read and write later
};

void bind_dimm(py::class_<PyFleet>& fleet);

}  // namespace trimoe::ndp
