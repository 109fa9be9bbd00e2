// trimoe._runtime: who besides the CPU runs experts of a layer, who decides, and what calls took.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/errors_py.h"
#include "bindings/ndp/dimm_error_py.h"
#include "bindings/ndp/ndp_fleet_py.h"
#include "bindings/runtime/policy_py.h"
#include "common/names.h"
#include "runtime/failure.h"
#include "runtime/fleet_domain.h"
#include "runtime/layer.h"
#include "runtime/stand_in.h"

namespace py = pybind11;
using namespace trimoe;
using namespace trimoe::runtime;

namespace {

// What Python is told of a failure: of most nothing, as its text says all.
void set_error(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const PolicyError& error) {
    const auto& cause = *static_cast<const py::object*>(error.cause.get());
    PyErr_SetObject(py::type::of(cause).ptr(), cause.ptr());
  } catch (const ndp::DimmError& error) {
    ndp::set_dimm_error(error);
  }
}

// The op's library links no Python: what it throws becomes a RuntimeError, and the Python error that is set
// here its cause. NOLINTNEXTLINE(bugprone-exception-escape)
void set_cause(const std::exception_ptr& failure) noexcept {
  if (!Py_IsInitialized() || !PyGILState_GetThisThreadState()) return;  // nobody of Python's calls
  const py::gil_scoped_acquire locked;
  try {
    set_error(failure);
  } catch (...) {
    return;
  }
}

void attach_fleet(int64_t layer, const ndp::PyFleet& fleet, const std::string& arithmetic) {
  const size_t who = index_of(kArithmeticNames, arithmetic, "an arithmetic");
  const auto domain = std::make_shared<FleetDomain>(layer, fleet.fleet, static_cast<Arithmetic>(who));
  attach(layer, domain->codes(), domain);
}

void attach_stand_in(int64_t layer, std::vector<int32_t> codes) {
  check(!codes.empty(), "a code or more", "none", "[1]");
  attach(layer, std::move(codes), std::make_shared<StandIn>());
}

std::vector<int32_t> codes_of(int64_t layer) {
  std::vector<int32_t> codes{kCpuDomain};
  const OpenLayer found = find_layer(layer);
  if (found.wiring)
    for (const auto& one : found.wiring->domains)
      codes.insert(codes.end(), one.codes.begin(), one.codes.end());
  std::ranges::sort(codes);
  return codes;
}

py::dict as_dict(const Record& record) {
  py::list domains;
  for (const Took& one : record.took) {
    py::dict took;
    took["code"] = one.code;
    took["experts"] = one.experts;
    took["rows"] = one.rows;
    took["kind"] = kKindNames[static_cast<size_t>(one.kind)];
    took["took_ns"] = one.took_ns;
    took["host_ns"] = one.host_ns;
    domains.append(took);
  }
  py::dict call;
  call["layer"] = record.layer;
  call["begun_ns"] = record.begun_ns;
  call["plan_ns"] = record.plan_ns;
  call["submitted_ns"] = record.submitted_ns;
  call["took_ns"] = record.took_ns;
  call["tokens"] = record.tokens;
  call["host_rows"] = record.host_rows;
  call["domains"] = domains;
  return call;
}

}  // namespace

PYBIND11_MODULE(_runtime, m) {
  m.doc() = "Domains, policy and recorder of a layer of the op; see _runtime.pyi.";
  py::module_::import("trimoe._ndp");  // has the type of a fleet
  listen_to_failures(&set_cause);
  translate_errors();
  // What is let go of may have to wait for calls that want the GIL.
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  m.def("attach_fleet", &attach_fleet, py::arg("layer"), py::arg("fleet"), py::arg("arithmetic"), Unlocked());
  m.def("attach_stand_in", &attach_stand_in, py::arg("layer"), py::arg("codes"), Unlocked());
  m.def("codes", &codes_of, py::arg("layer"));
  m.def(
      "detach",
      [](int64_t layer, std::optional<int32_t> code) { code ? detach(layer, *code) : detach_all(layer); },
      py::arg("layer"), py::arg("code") = py::none(), Unlocked());
  m.def(
      "set_policy",
      [](int64_t layer, const py::object& policy) {
        auto made = policy_of(policy, find_layer(layer).packed->shape().experts);
        const py::gil_scoped_release unlocked;
        set_policy(layer, std::move(made));
      },
      py::arg("layer"), py::arg("policy"));
  py::class_<Recorder, std::shared_ptr<Recorder>>(m, "Recorder")
      .def(py::init([](int64_t capacity) {
             check(capacity >= 1, "room for one call or more", capacity, "65536");
             return std::make_shared<Recorder>(static_cast<size_t>(capacity));
           }),
           py::arg("capacity") = 65536)
      .def("drain", [](Recorder& self) {
        const auto [records, dropped] = self.drain();
        py::list calls;
        for (const Record& one : records) calls.append(as_dict(one));
        return py::make_tuple(calls, dropped);
      });
  m.def("set_recorder", &set_recorder, py::arg("layer"), py::arg("recorder").none(true), Unlocked());
}
