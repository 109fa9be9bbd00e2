// One DIMM of a fleet by descriptors, its memory and its faults, for trimoe._ndp.
#include <cstring>

#include <pybind11/stl.h>

#include "bindings/cpu/keep_py.h"
#include "bindings/ndp/core_expert_py.h"
#include "bindings/ndp/ndp_fleet_py.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kMaxAllocation = int64_t{1} << 30;  // of the host's memory
constexpr double kMaxNs = 1e12;                       // of emulated time: every refresh until then is counted

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

py::dict counters_dict(Dimm& one) {
  const DimmState& dimm = one.state();
  const DimmCounters& counters = dimm.counters;
  py::dict commands, result;
  for (int opcode = 0; opcode < kOpcodes; ++opcode)
    if (const int64_t count = counters.completed[static_cast<size_t>(opcode)])
      commands[find_command(static_cast<uint8_t>(opcode))->name] = count;
  result["commands"] = commands;
  result["started"] = one.faults().commands();
  result["failed"] = counters.failed;
  result["dram_read_bytes"] = counters.dram_read_bytes;
  result["dram_written_bytes"] = counters.dram_written_bytes;
  result["channel_bytes"] = counters.channel_bytes;
  result["link_bytes"] = counters.link_bytes;
  result["busy_ns"] = counters.busy_ns;
  result["dram_nj"] = counters.dram_nj;
  result["channel_nj"] = counters.channel_nj;
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

std::string submit(PyFleet& self, int dimm, const py::object& descriptor, const py::object& payload,
                   const py::object& out) {
  const py::buffer_info raw = contiguous(descriptor);
  check(raw.size * raw.itemsize == sizeof(Descriptor), "a descriptor of 64 bytes", raw.size * raw.itemsize,
        "Descriptor.pack()");
  Descriptor copy;
  std::memcpy(&copy, raw.ptr, sizeof copy);
  Payload both;
  std::deque<py::buffer_info> used;
  if (!payload.is_none()) both.in = bytes_in(used.emplace_back(contiguous(payload)));
  if (!out.is_none()) {
    const py::buffer_info& info = used.emplace_back(contiguous(out, true));
    both.out = {static_cast<std::byte*>(info.ptr), static_cast<size_t>(info.size * info.itemsize)};
  }
  return self.fleet->with_dimm(dimm, [&](Dimm& one) {
    auto& kept = self.kept[dimm];
    if (one.is_idle()) kept.clear();
    for (py::buffer_info& info : used) kept.push_back(keep(std::move(info)));
    return std::string(name_of(one.submit(copy, both)));
  });
}

double advance(PyFleet& self, int dimm, double to_ns) {
  return self.fleet->with_dimm(dimm, [&](Dimm& one) {
    check(to_ns >= 0 && to_ns <= kMaxNs, "a time of 0 to 1e12 ns", to_ns, "now_ns plus what you wait for");
    one.advance(to_ns);
    return one.now_ns();
  });
}

void write(PyFleet& self, int dimm, uint64_t address, const py::object& data) {
  const py::buffer_info info = contiguous(data);
  const auto from = bytes_in(info);
  self.fleet->with_dimm(dimm, [&](Dimm& one) {
    std::byte* to = one.state().memory.write(address, std::ssize(from));
    check(to != nullptr, "an allocated region of the DIMM", address, "allocate()");
    std::memcpy(to, from.data(), from.size());
  });
}

py::bytes read(PyFleet& self, int dimm, uint64_t address, int64_t bytes) {
  return self.fleet->with_dimm(dimm, [&](Dimm& one) {
    const std::byte* from = one.state().memory.read(address, bytes);
    check(from != nullptr, "a region of the DIMM", address, "allocate()");
    return py::bytes(reinterpret_cast<const char*>(from), static_cast<size_t>(bytes));
  });
}

void inject(PyFleet& self, int dimm, int64_t command, const std::string& fault, double at) {
  const auto kind = index_of(kFaultNames, fault, "a fault");
  check(at >= 0 && at <= 1, "a share of the command's time", at, "0.5");
  self.fleet->with_dimm(dimm, [&](Dimm& one) {
    check(command >= one.faults().commands(), "a command that has not started", command,
          "stats()['dimms'][dimm]['started'] or more");
    one.faults().inject(command, {static_cast<Fault>(kind), at});
  });
}

void seed_faults(PyFleet& self, int dimm, uint64_t seed, double corrupt, double timeout, double death,
                 double ecc) {
  for (const double rate : {corrupt, timeout, death, ecc, corrupt + timeout + death + ecc})
    check(rate >= 0 && rate <= 1, "rates from 0 to 1, at most 1 together", rate, "0.01");
  self.fleet->with_dimm(dimm, [&](Dimm& one) { one.faults().seed(seed, {corrupt, timeout, death, ecc}); });
}

}  // namespace

void bind_dimm(py::class_<PyFleet>& fleet) {
  fleet.def("submit", &submit, py::arg("dimm"), py::arg("descriptor"), py::arg("payload"), py::arg("out"))
      .def("advance", &advance)
      .def("run_dimm",
           [](PyFleet& self, int dimm) {
             return self.fleet->with_dimm(dimm, [](Dimm& one) { return one.run(); });
           })
      .def("poll",
           [](PyFleet& self, int dimm) -> py::object {
             const auto ended = self.fleet->with_dimm(dimm, [](Dimm& one) { return one.poll(); });
             return ended ? py::object(ended_dict(*ended)) : py::none();
           })
      .def("interrupt",
           [](PyFleet& self, int dimm) {
             return self.fleet->with_dimm(dimm, [](Dimm& one) { return one.interrupt(); });
           })
      .def("counters", [](PyFleet& self, int dimm) { return self.fleet->with_dimm(dimm, counters_dict); })
      .def("allocate",
           [](PyFleet& self, int dimm, int64_t bytes) {
             check(bytes <= kMaxAllocation, "a region of at most 1 GiB", bytes, "fewer bytes");
             return self.fleet->with_dimm(dimm,
                                          [&](Dimm& one) { return one.state().memory.allocate(bytes); });
           })
      .def("write", &write)
      .def("read", &read)
      .def("inject", &inject)
      .def("seed_faults", &seed_faults)
      .def("kill",
           [](PyFleet& self, int dimm, double at_ns) {
             check(at_ns >= 0, "a time from 0 on", at_ns, "0 for now");
             self.fleet->with_dimm(dimm, [&](Dimm& one) { one.kill(at_ns); });
           })
      .def("poison", [](PyFleet& self, int dimm, uint64_t address) {
        self.fleet->with_dimm(dimm, [&](Dimm& one) {
          check(one.state().memory.read(address, 1) != nullptr, "a region of the DIMM", address,
                "allocate()");
          one.state().memory.poison(address);
        });
      });
}

}  // namespace trimoe::ndp
