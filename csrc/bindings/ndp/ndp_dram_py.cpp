// The DRAM of trimoe._ndp: speed grades, devices, bandwidth, latency.
#include <ranges>

#include <pybind11/stl.h>

#include "bindings/ndp/ndp_py.h"
#include "common/names.h"
#include "ndp/dram/measure.h"

namespace trimoe::ndp {
namespace {

using Field = std::pair<const char*, int DramTiming::*>;
#define TIMING(name) Field(#name, &DramTiming::name)
constexpr Field kTimings[] = {
    TIMING(nBL),    TIMING(nCL),       TIMING(nRCD),   TIMING(nRP),    TIMING(nRAS),
    TIMING(nRC),    TIMING(nCWL),      TIMING(nWR),    TIMING(nRTP),   TIMING(nCCD_S),
    TIMING(nCCD_L), TIMING(nCCD_L_WR), TIMING(nRRD_S), TIMING(nRRD_L), TIMING(nFAW),
    TIMING(nWTR_S), TIMING(nWTR_L),    TIMING(nPPD),   TIMING(nRFC1),  TIMING(nRFC2),
    TIMING(nRFCsb), TIMING(nREFSBRD),  TIMING(nREFI),  TIMING(nXP),    TIMING(nRTRS)};
#undef TIMING

py::dict spec_dict(const DramSpec& spec) {
  py::dict timing, result;
  for (const auto& [name, field] : kTimings) timing[name] = spec.timing.*field;
  const DramGeometry& geometry = spec.geometry;
  result["name"] = spec.name;
  result["clock_ns"] = spec.clock_ns;
  result["peak_gbps"] = spec.peak_gbps();
  result["bank_groups"] = geometry.bank_groups;
  result["banks_per_group"] = geometry.banks_per_group;
  result["rows"] = geometry.rows;
  result["bursts_per_row"] = geometry.bursts_per_row;
  result["burst_bytes"] = geometry.burst_bytes;
  result["timing_clocks"] = timing;
  py::dict energy;
  energy["read"] = spec.energy.read_nj;
  energy["write"] = spec.energy.write_nj;
  energy["activate"] = spec.energy.activate_nj;
  energy["refresh"] = spec.energy.refresh_nj;
  result["energy_nj"] = energy;
  result["source"] = spec.source;
  return result;
}

Command command_named(const std::string& name) {
  return static_cast<Command>(index_of(std::views::iota(0, kCommands), name, "a command",
                                       [](int one) { return name_of(static_cast<Command>(one)); }));
}

// A device by the names of its commands.
class PyDevice {
 public:
  PyDevice(const std::string& spec, int ranks) : device_(dram_spec(spec), ranks) {}
  int64_t earliest(const std::string& command, int rank, int group, int bank) const {
    return device_.earliest(command_named(command), index(rank, group, bank));
  }
  void issue(const std::string& command, int64_t at, int rank, int group, int bank, int row) {
    check(row >= 0 && row < device_.spec().geometry.rows, "a row of the bank", row, "0");
    device_.issue(command_named(command), index(rank, group, bank), at, row);
  }

 private:
  int index(int rank, int group, int bank) const {
    const DramGeometry& geometry = device_.spec().geometry;
    check(rank >= 0 && rank < device_.ranks(), "a rank of the sub-channel", rank, "0");
    check(group >= 0 && group < geometry.bank_groups, "a bank group of the rank", group, "0");
    check(bank >= 0 && bank < geometry.banks_per_group, "a bank of the group", bank, "0");
    return device_.bank_index({rank, group, bank});
  }
  Device device_;
};

// Of each command: i64 clock, i32 bank in the sub-channel, i32 row, u8 command, 7 bytes of nothing.
py::bytes packed(const std::vector<Issued>& log) {
  static_assert(sizeof(Issued) == 24 && offsetof(Issued, bank) == 8 && offsetof(Issued, row) == 12 &&
                offsetof(Issued, command) == 16);
  return {reinterpret_cast<const char*>(log.data()), log.size() * sizeof(Issued)};
}

// A controller whose commands can be read, for tests.
class PyController {
 public:
  PyController(const std::string& spec, int ranks, const ControllerOptions& options)
      : controller_(dram_spec(spec), ranks, options) {}
  int64_t now() const { return controller_.now(); }
  bool has_room(bool write) const { return controller_.has_room(write); }
  void push(int rank, int group, int bank, int row, bool write, int64_t arrival, int64_t tag) {
    controller_.push({{rank, group, bank, row, 0}, write, arrival, tag});
  }
  // The command that was issued (name, bank in the sub-channel, clock, row), if one was; tag and end of the
  // data of the request that it completed, if it did.
  py::tuple step(int64_t limit) {
    std::vector<Issued> log;
    controller_.record(&log);
    Completion done{};
    const bool is_done = controller_.step(limit, done);
    controller_.record(nullptr);
    py::object command = py::none(), completed = py::none();
    for (const Issued& one : log) command = py::make_tuple(name_of(one.command), one.bank, one.at, one.row);
    if (is_done) completed = py::make_tuple(done.request.tag, done.data_end);
    return py::make_tuple(command, completed);
  }

 private:
  Controller controller_;
};

py::dict bandwidth(const std::string& spec, const std::string& pattern, int read_pct, int ranks,
                   int64_t bursts, bool refresh, int refresh_apart, uint64_t seed, bool traced) {
  BandwidthCase one;
  one.pattern = pattern_named(pattern);
  one.read_pct = read_pct;
  one.ranks = ranks;
  one.bursts = bursts;
  one.seed = seed;
  one.options.refresh = refresh;
  one.options.refresh_apart = refresh_apart;
  const DramSpec& grade = dram_spec(spec);
  std::vector<Issued> log;
  const BandwidthResult found = [&] {
    const py::gil_scoped_release unlocked;
    return measure_bandwidth(grade, one, traced ? &log : nullptr);
  }();
  py::dict counts, result;
  counts["RD"] = found.reads;
  counts["WR"] = found.writes;
  counts["ACT"] = found.activates;
  counts["PRE"] = found.precharges;
  counts["REF"] = found.refreshes;
  result["bandwidth_gbps"] = found.gbps;
  result["peak_gbps"] = grade.peak_gbps();
  result["commands"] = counts;
  if (traced) result["trace"] = packed(log);
  return result;
}

}  // namespace

void bind_dram(py::module_& m) {
  m.def("specs", [] {
    py::list result;
    for (const DramSpec& spec : dram_specs()) result.append(spec_dict(spec));
    return result;
  });
  m.def("patterns",
        [] { return std::vector<std::string>(std::begin(kPatternNames), std::end(kPatternNames)); });
  py::class_<PyDevice>(m, "Device")
      .def(py::init<const std::string&, int>(), py::arg("spec"), py::arg("ranks") = 1)
      .def("earliest", &PyDevice::earliest, py::arg("command"), py::arg("rank") = 0, py::arg("group") = 0,
           py::arg("bank") = 0)
      .def("issue", &PyDevice::issue, py::arg("command"), py::arg("at"), py::arg("rank") = 0,
           py::arg("group") = 0, py::arg("bank") = 0, py::arg("row") = 0);
  py::class_<PyController>(m, "Controller")
      .def(py::init([](const std::string& spec, int ranks, bool refresh, int queue, int drain_from,
                       int refresh_apart) {
             return PyController(spec, ranks, {refresh, queue, drain_from, refresh_apart});
           }),
           py::arg("spec"), py::arg("ranks"), py::arg("refresh"), py::arg("queue"), py::arg("drain_from"),
           py::arg("refresh_apart"))
      .def("now", &PyController::now)
      .def("has_room", &PyController::has_room, py::arg("write"))
      .def("push", &PyController::push, py::arg("rank"), py::arg("group"), py::arg("bank"), py::arg("row"),
           py::arg("write"), py::arg("arrival"), py::arg("tag"))
      .def("step", &PyController::step, py::arg("limit"));
  m.def("bandwidth", &bandwidth, py::arg("spec"), py::arg("pattern"), py::arg("read_pct"), py::arg("ranks"),
        py::arg("bursts"), py::arg("refresh"), py::arg("refresh_apart"), py::arg("seed"),
        py::arg("traced") = false);
  m.def(
      "idle_latency_ns",
      [](const std::string& spec) {
        const DramSpec& grade = dram_spec(spec);
        const py::gil_scoped_release unlocked;
        return std::pair(idle_hit_ns(grade), idle_conflict_ns(grade));
      },
      py::arg("spec"));
  m.def(
      "loaded_latency",
      [](const std::string& spec, double background_gbps, int probes, bool refresh, uint64_t seed) {
        const DramSpec& grade = dram_spec(spec);
        ControllerOptions options;
        options.refresh = refresh;
        const py::gil_scoped_release unlocked;
        const LoadedResult found = measure_loaded_latency(grade, background_gbps, probes, options, seed);
        return std::pair(found.gbps, found.latency_ns);
      },
      py::arg("spec"), py::arg("background_gbps"), py::arg("probes"), py::arg("refresh"), py::arg("seed"));
}

}  // namespace trimoe::ndp
