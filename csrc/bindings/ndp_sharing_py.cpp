// Host and NDP on one rank, for trimoe._ndp.
#include "bindings/ndp_py.h"
#include "common/error.h"
#include "ndp/refresh.h"

namespace trimoe::ndp {
namespace {

Owner owner_named(const std::string& name) {
  for (const Owner owner : {Owner::kHost, Owner::kNdp})
    if (name == name_of(owner)) return owner;
  throw Error("an owner out of host, ndp", name, "host");
}

}  // namespace

void bind_sharing(py::module_& m) {
  py::class_<RefreshLedger>(m, "RefreshLedger")
      .def(py::init([](const std::string& spec, int64_t first_due) {
             return RefreshLedger(dram_spec(spec).timing, first_due);
           }),
           py::arg("spec"), py::arg("first_due") = 0)
      .def_property_readonly("owner", [](const RefreshLedger& self) { return name_of(self.owner()); })
      .def_property_readonly("next_due", &RefreshLedger::next_due)
      .def_property_readonly("transfers", &RefreshLedger::transfers)
      .def_property_readonly("largest_debt", &RefreshLedger::largest_debt)
      .def("debt", &RefreshLedger::debt, py::arg("clock"))
      .def(
          "issue",
          [](RefreshLedger& self, const std::string& by, int64_t clock) {
            self.issue(owner_named(by), clock);
          },
          py::arg("by"), py::arg("clock"))
      .def(
          "transfer",
          [](RefreshLedger& self, const std::string& to, int64_t clock) {
            self.transfer(owner_named(to), clock);
          },
          py::arg("to"), py::arg("clock"))
      .def(
          "issued",
          [](const RefreshLedger& self, const std::string& owner) { return self.issued(owner_named(owner)); },
          py::arg("owner"));
}

}  // namespace trimoe::ndp
