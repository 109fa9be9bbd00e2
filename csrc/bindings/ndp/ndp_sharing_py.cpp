// Host and NDP on one DIMM, for trimoe._ndp.
#include <array>

#include "bindings/ndp/ndp_py.h"
#include "common/names.h"
#include "ndp/sharing/sharing.h"

namespace trimoe::ndp {
namespace {

Owner owner_named(const std::string& name) {
  constexpr std::array kOwners = {Owner::kHost, Owner::kNdp};
  return kOwners[index_of(kOwners, name, "an owner", [](Owner owner) { return name_of(owner); })];
}

py::dict result_dict(const SharingResult& found) {
  py::dict result;
  result["undisturbed_gbps"] = found.undisturbed_gbps;
  result["ndp_gbps"] = found.ndp_gbps;
  result["ndp_share"] = found.share();
  result["in_step_share"] = found.share_in_step();
  result["host_gbps"] = found.host_gbps;
  result["row_switch_loss"] = found.row_switch_loss;
  result["host_reads"] = found.host_reads;
  result["latency_min_ns"] = found.latency_min_ns;
  result["latency_mean_ns"] = found.latency_mean_ns;
  result["latency_p99_ns"] = found.latency_p99_ns;
  result["latency_max_ns"] = found.latency_max_ns;
  result["clocks"] = found.clocks;
  result["switches"] = found.switches;
  result["host_refreshes"] = found.host_refreshes;
  result["ndp_refreshes"] = found.ndp_refreshes;
  result["due_refreshes"] = found.due_refreshes;
  result["largest_debt"] = found.largest_debt;
  result["host_requests"] = found.host_requests;
  result["host_served_once"] = found.host_served_once;
  result["ndp_requests"] = found.ndp_requests;
  result["ndp_served"] = found.ndp_served;
  result["deepest_fifo"] = found.deepest_fifo;
  result["deepest_commands"] = found.deepest_commands;
  result["reads"] = found.reads;
  result["writes"] = found.writes;
  return result;
}

py::dict sharing(const std::string& spec, const std::string& mode, const std::string& pattern, int ranks,
                 double host_gbps, int write_pct, double max_window_ns, double duration_ns, int row_hit_cap,
                 int ndp_window, int host_outstanding, int postpone, uint64_t seed, bool traced) {
  SharingCase one;
  one.mode = mode_named(mode);
  one.ranks = ranks;
  one.host_gbps = host_gbps;
  one.pattern = pattern_named(pattern);
  one.write_pct = write_pct;
  one.max_window_ns = max_window_ns;
  one.duration_ns = duration_ns;
  one.ndp_window = ndp_window;
  one.host_outstanding = host_outstanding;
  one.policy.row_hit_cap = row_hit_cap;
  one.policy.postpone = postpone;
  one.seed = seed;
  const DramSpec& grade = dram_spec(spec);
  std::vector<RankCommand> commands;
  const SharingResult found = [&] {
    const py::gil_scoped_release unlocked;
    return simulate_sharing(grade, one, traced ? &commands : nullptr);
  }();
  py::dict result = result_dict(found);
  if (!traced) return result;
  py::list trace;
  for (const RankCommand& command : commands)
    trace.append(py::make_tuple(command.clock, command.name, command.bank, command.row, name_of(command.from),
                                command.tag));
  result["trace"] = trace;
  return result;
}

}  // namespace

void bind_sharing(py::module_& m) {
  m.def("sharing", &sharing, py::arg("spec"), py::arg("mode"), py::arg("pattern"), py::arg("ranks"),
        py::arg("host_gbps"), py::arg("write_pct"), py::arg("max_window_ns"), py::arg("duration_ns"),
        py::arg("row_hit_cap"), py::arg("ndp_window"), py::arg("host_outstanding"), py::arg("postpone"),
        py::arg("seed"), py::arg("traced") = false);
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
