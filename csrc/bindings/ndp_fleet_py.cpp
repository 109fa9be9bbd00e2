// DIMMs by descriptor and as a fleet, for trimoe._ndp.
#include <cstring>
#include <deque>

#include <pybind11/stl.h>

#include "bindings/core_expert_py.h"
#include "bindings/ndp_py.h"
#include "common/own_threads.h"
#include "ndp/system/domain.h"

namespace trimoe::ndp {
namespace {

template <size_t n>
size_t index_of(const std::string_view (&names)[n], const std::string& name, const char* expected) {
  for (size_t i = 0; i < n; ++i)
    if (names[i] == name) return i;
  throw Error(expected, name, std::string(names[0]));
}

std::span<const std::byte> bytes_in(const py::buffer_info& info) {
  return {static_cast<const std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
}

py::dict ended_dict(const Ended& ended) {
  py::dict result;
  result["tag"] = ended.tag;
  result["opcode"] = ended.opcode;
  result["status"] = name_of(ended.status);
  result["submitted_ns"] = ended.submitted_ns;
  result["start_ns"] = ended.start_ns;
  result["done_ns"] = ended.done_ns;
  return result;
}

py::dict counters_dict(const DimmState& dimm) {
  const DimmCounters& counters = dimm.counters;
  py::dict commands, result;
  for (int opcode = 0; opcode < kOpcodes; ++opcode)
    if (const int64_t count = counters.completed[static_cast<size_t>(opcode)])
      commands[find_command(static_cast<uint8_t>(opcode))->name] = count;
  result["commands"] = commands;
  result["failed"] = counters.failed;
  result["dram_read_bytes"] = counters.dram_read_bytes;
  result["dram_written_bytes"] = counters.dram_written_bytes;
  result["channel_bytes"] = counters.channel_bytes;
  result["link_bytes"] = counters.link_bytes;
  result["busy_ns"] = counters.busy_ns;
  result["dram_nj"] = counters.dram_nj;
  result["link_nj"] = counters.link_nj;
  result["used_bytes"] = dimm.memory.used_bytes();
  result["capacity_bytes"] = dimm.memory.capacity();
  result["experts"] = dimm.slots.size();
  std::vector<std::string_view> modes;
  std::vector<std::pair<int64_t, int64_t>> refreshes;  // by the host, by the NDP side
  for (const Rank& rank : dimm.ranks) {
    modes.push_back(kModeNames[static_cast<size_t>(rank.mode)]);
    refreshes.emplace_back(rank.refresh.issued(Owner::kHost), rank.refresh.issued(Owner::kNdp));
  }
  result["modes"] = modes;
  result["refreshes"] = refreshes;
  return result;
}

// What DIMMs read and write later, kept until then.
struct PyFleet {
  std::shared_ptr<Fleet> fleet;
  std::deque<py::object> kept = {};

  std::string submit(int dimm, const py::buffer& descriptor, const py::object& payload,
                     const py::object& out) {
    const py::buffer_info raw = descriptor.request();
    check(raw.size * raw.itemsize == sizeof(Descriptor), "a descriptor of 64 bytes", raw.size * raw.itemsize,
          "Descriptor.pack()");
    Descriptor copy;
    std::memcpy(&copy, raw.ptr, sizeof copy);
    Payload both;
    if (!payload.is_none()) both.in = bytes_in(payload.cast<py::buffer>().request());
    if (!out.is_none()) {
      const py::buffer_info info = out.cast<py::buffer>().request(true);
      both.out = {static_cast<std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
    }
    Dimm& one = fleet->dimm(dimm);
    if (one.is_idle() && fleet->size() == 1) kept.clear();
    kept.push_back(payload);
    kept.push_back(out);
    return name_of(one.submit(copy, both));
  }
};

DimmConfig config_of(const std::string& spec, int ranks, double tflops, int64_t buffer_bytes,
                     double link_gbps, double timeout_ns, int ring) {
  DimmConfig config;
  config.spec = &dram_spec(spec);
  config.core.ranks = ranks;
  config.core.tflops = tflops;
  config.core.buffer_bytes = buffer_bytes;
  config.core.link_gbps = link_gbps;
  config.timeout_ns = timeout_ns;
  config.ring = ring;
  check(ranks == 1 || ranks == 2 || ranks == 4 || ranks == 8, "1, 2, 4 or 8 ranks", ranks, "4");
  check(tflops > 0 && link_gbps > 0 && timeout_ns > 0 && ring >= 1, "positive rates, timeout and ring",
        tflops, "the defaults");
  check(buffer_bytes >= 1024 && buffer_bytes <= int64_t{1} << 31, "a buffer of 1 KiB to 2 GiB", buffer_bytes,
        "262144");
  return config;
}

}  // namespace

void bind_fleet(py::module_& m) {
  m.def("crc32c", [](const py::buffer& bytes) {
    const auto info = bytes.request();
    const auto view = bytes_in(info);
    return crc32c(view.data(), view.size());
  });
  m.def("detach", &detach, py::arg("layer"));
  m.def("expert_key", &expert_key, py::arg("layer"), py::arg("expert"));
  m.attr("FIRST_DOMAIN") = kFirstDomain;
  m.def("commands", [] {
    std::vector<std::string> names;
    for (int opcode = 0; opcode < kOpcodes; ++opcode)
      names.emplace_back(find_command(static_cast<uint8_t>(opcode))->name);
    return names;
  });
  m.def("statuses", [] {
    std::vector<std::string> names;
    for (int status = 0; status < static_cast<int>(Status::kCount); ++status)
      names.emplace_back(name_of(static_cast<Status>(status)));
    return names;
  });
  py::class_<CoreExpertShape>(m, "CoreShape")
      .def(py::init(&make_core_shape), py::arg("hidden"), py::arg("inter"), py::arg("number"),
           py::arg("group") = 0, py::arg("activation") = "silu", py::arg("gated") = true,
           py::arg("bias") = false, py::arg("alpha") = 1.702f, py::arg("limit") = 7.0f)
      .def_property_readonly("expert_bytes",
                             [](const CoreExpertShape& self) { return self.shape.expert_bytes(); });
  py::class_<PyFleet>(m, "Fleet")
      .def(py::init([](int dimms, const std::string& spec, int ranks, double tflops, int64_t buffer_bytes,
                       double link_gbps, double timeout_ns, int ring) {
             return PyFleet{std::make_shared<Fleet>(
                 config_of(spec, ranks, tflops, buffer_bytes, link_gbps, timeout_ns, ring), dimms)};
           }),
           py::arg("dimms"), py::arg("spec"), py::arg("ranks"), py::arg("tflops"), py::arg("buffer_bytes"),
           py::arg("link_gbps"), py::arg("timeout_ns"), py::arg("ring"))
      // A DIMM by itself.
      .def("submit", &PyFleet::submit, py::arg("dimm"), py::arg("descriptor"), py::arg("payload"),
           py::arg("out"))
      .def("advance", [](PyFleet& self, int dimm, double to_ns) { self.fleet->dimm(dimm).advance(to_ns); })
      .def("run_dimm", [](PyFleet& self, int dimm) { return self.fleet->dimm(dimm).run(); })
      .def("now_ns", [](PyFleet& self, int dimm) { return self.fleet->dimm(dimm).now_ns(); })
      .def("poll",
           [](PyFleet& self, int dimm) -> py::object {
             const auto ended = self.fleet->dimm(dimm).poll();
             return ended ? py::object(ended_dict(*ended)) : py::none();
           })
      .def("interrupt", [](PyFleet& self, int dimm) { return self.fleet->dimm(dimm).interrupt(); })
      .def("counters", [](PyFleet& self, int dimm) { return counters_dict(self.fleet->dimm(dimm).state()); })
      .def("allocate", [](PyFleet& self, int dimm,
                          int64_t bytes) { return self.fleet->dimm(dimm).state().memory.allocate(bytes); })
      .def("write",
           [](PyFleet& self, int dimm, uint64_t address, const py::buffer& data) {
             const py::buffer_info info = data.request();
             const auto from = bytes_in(info);
             std::byte* to = self.fleet->dimm(dimm).state().memory.write(address, std::ssize(from));
             check(to != nullptr, "an allocated region of the DIMM", static_cast<int64_t>(address),
                   "allocate()");
             std::memcpy(to, from.data(), from.size());
           })
      .def("read",
           [](PyFleet& self, int dimm, uint64_t address, int64_t bytes) {
             const std::byte* from = self.fleet->dimm(dimm).state().memory.read(address, bytes);
             check(from != nullptr, "a region of the DIMM", static_cast<int64_t>(address), "allocate()");
             return py::bytes(reinterpret_cast<const char*>(from), static_cast<size_t>(bytes));
           })
      // Faults.
      .def("inject",
           [](PyFleet& self, int dimm, int64_t command, const std::string& fault, double at) {
             const auto kind = index_of(kFaultNames, fault, "a fault none, corrupt, timeout, death or ecc");
             check(at >= 0 && at <= 1, "a share of the command's time", at, "0.5");
             self.fleet->dimm(dimm).faults().inject(command, {static_cast<Fault>(kind), at});
           })
      .def("seed_faults",
           [](PyFleet& self, int dimm, uint64_t seed, double corrupt, double timeout, double death,
              double ecc) { self.fleet->dimm(dimm).faults() = Faults(seed, {corrupt, timeout, death, ecc}); })
      .def("kill", [](PyFleet& self, int dimm, double at_ns) { self.fleet->dimm(dimm).kill(at_ns); })
      .def("poison", [](PyFleet& self, int dimm,
                        uint64_t address) { self.fleet->dimm(dimm).state().memory.poison(address); })
      // Experts.
      .def("place",
           [](PyFleet& self, int64_t expert, const CoreExpertShape& shape, const py::buffer& data, int dimm) {
             py::buffer_info info = data.request();
             const auto bytes = bytes_in(info);
             check(std::ssize(bytes) == shape.shape.expert_bytes(), "all bytes of the packed expert",
                   std::ssize(bytes), "its part of ExpertLayer.memory");
             self.fleet->place(expert, shape.shape, shape.number, bytes.data(), keep(std::move(info)), dimm);
           })
      .def("remove", [](PyFleet& self, int64_t expert) { self.fleet->remove(expert); })
      .def("where",
           [](PyFleet& self, int64_t expert) {
             const Location found = self.fleet->where(expert);
             return std::tuple(found.dimm, found.slot, found.striped, found.bytes);
           })
      .def("address_of", [](PyFleet& self, int64_t expert) { return self.fleet->address_of(expert); })
      .def("bytes_of",
           [](PyFleet& self, int64_t expert) {
             const auto bytes = self.fleet->read(expert);
             return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
           })
      .def(
          "run",
          [](PyFleet& self, const std::vector<std::tuple<int64_t, py::buffer, py::buffer>>& jobs,
             int threads) {
            std::vector<ExpertJob> list;
            for (const auto& [expert, x, out] : jobs) {
              const auto in = x.request(), to = out.request(true);
              const int64_t hidden = self.fleet->hidden_of(expert),
                            tokens = in.size * in.itemsize / (2 * hidden);
              check(in.size * in.itemsize == tokens * hidden * 2 &&
                        to.size * to.itemsize == tokens * hidden * 4,
                    "bf16 [tokens, H] and as many fp32 for the results", to.size * to.itemsize,
                    "4 bytes for each value");
              list.push_back({expert, static_cast<const Bf16*>(in.ptr), tokens, static_cast<float*>(to.ptr)});
            }
            const py::gil_scoped_release unlocked;
            return self.fleet->run(list, OwnThreads(threads));
          })
      .def("migrate", [](PyFleet& self, int64_t expert, int to) { return self.fleet->migrate(expert, to); })
      .def("relayout",
           [](PyFleet& self, int64_t expert, bool striped) { return self.fleet->relayout(expert, striped); })
      .def("evacuate", [](PyFleet& self, int from) { return self.fleet->evacuate(from); })
      .def("reset", [](PyFleet& self, int dimm) { self.fleet->reset(dimm); })
      .def("attach",
           [](PyFleet& self, int64_t layer, const std::string& arithmetic) {
             const auto who = index_of(kArithmeticNames, arithmetic, "arithmetic of host or core");
             attach(layer, {self.fleet, static_cast<Arithmetic>(who)});
           })
      .def("failures",
           [](PyFleet& self) {
             py::dict result;
             for (const auto& [dimm, status] : self.fleet->failures())
               result[py::int_(dimm)] = name_of(status);
             return result;
           })
      .def("fleet_counters", [](PyFleet& self) {
        const FleetCounters found = self.fleet->counters();
        py::dict result;
        result["steps"] = found.steps;
        result["experts"] = found.experts;
        result["rows"] = found.rows;
        result["busy_ns"] = found.busy_ns;
        result["host_ns"] = found.host_ns;
        result["moves"] = found.moves;
        result["move_ns"] = found.move_ns;
        return result;
      });
}

}  // namespace trimoe::ndp
