// DIMMs as a fleet, for trimoe._ndp.
#include "bindings/ndp/ndp_fleet_py.h"

#include <pybind11/stl.h>

#include "bindings/cpu/keep_py.h"
#include "bindings/ndp/core_expert_py.h"
#include "common/own_threads.h"
#include "ndp/system/expert_key.h"

namespace trimoe::ndp {
namespace {

DimmConfig config_of(const std::string& spec, int ranks, double tflops, int64_t buffer_bytes,
                     double link_gbps, double timeout_ns, int ring, const std::string& mode,
                     double stream_share) {
  DimmConfig config;
  config.mode = mode_named(mode);
  config.stream_share = stream_share;
  check(config.mode != Mode::kHost, "mode exclusive or concurrent", mode, "exclusive");
  check(stream_share > 0 && stream_share <= 1, "a share of the stream between 0 and 1", stream_share, "1");
  config.spec = &dram_spec(spec);
  config.core.ranks = ranks;
  config.core.tflops = tflops;
  config.core.buffer_bytes = buffer_bytes;
  config.core.link_gbps = link_gbps;
  config.timeout_ns = timeout_ns;
  config.ring = ring;
  check(ranks == 1 || ranks == 2 || ranks == 4 || ranks == 8, "1, 2, 4 or 8 ranks", ranks, "4");
  check_core(config.core);
  check(timeout_ns > 0 && timeout_ns <= 1e9, "a timeout of up to a second, in ns", timeout_ns, "1e6");
  check(ring >= 1 && ring <= 65536, "a ring of 1 to 65536 descriptors", ring, "64");
  check(buffer_bytes >= 1024 && buffer_bytes <= int64_t{64} << 20, "a buffer of 1 KiB to 64 MiB",
        buffer_bytes, "262144");
  return config;
}

double run(const PyFleet& self, const std::vector<std::tuple<int64_t, py::object, py::object, int>>& jobs,
           int threads) {
  check(threads >= 1, "one thread or more", threads, "1");
  std::vector<ExpertJob> list;
  std::deque<py::buffer_info> used;  // stay where they are while others have the GIL
  for (const auto& [expert, x, out, dimm] : jobs) {
    const py::buffer_info& in = used.emplace_back(contiguous(x));
    const py::buffer_info& to = used.emplace_back(contiguous(out, true));
    const int64_t hidden = self.fleet->hidden_of(expert), tokens = in.size * in.itemsize / (2 * hidden);
    check(in.size * in.itemsize == tokens * hidden * 2 && to.size * to.itemsize == tokens * hidden * 4,
          "bf16 [tokens, H] and as many fp32 for the results",
          std::to_string(in.size * in.itemsize) + " and " + std::to_string(to.size * to.itemsize) + " bytes");
    list.push_back({expert, static_cast<const Bf16*>(in.ptr), tokens, static_cast<float*>(to.ptr), dimm});
  }
  const py::gil_scoped_release unlocked;
  return self.fleet->run(list, OwnThreads(threads)).ns;
}

Layout layout_named(const std::string& name) {
  return static_cast<Layout>(index_of(kLayoutNames, name, "a layout"));
}

}  // namespace

void bind_fleet(py::module_& m) {
  m.def("crc32c", [](const py::object& bytes) {
    const py::buffer_info info = contiguous(bytes);
    return crc32c(info.ptr, static_cast<size_t>(info.size * info.itemsize));
  });
  m.def("expert_key", &expert_key, py::arg("layer"), py::arg("expert"));
  m.def("commands", [] {
    std::vector<std::string> names;
    names.reserve(kOpcodes);
    for (int opcode = 0; opcode < kOpcodes; ++opcode)
      names.emplace_back(find_command(static_cast<uint8_t>(opcode))->name);
    return names;
  });
  m.def("statuses", [] {
    std::vector<std::string> names;
    names.reserve(static_cast<size_t>(Status::kCount));
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
  py::class_<PyFleet> fleet(m, "Fleet");
  fleet
      .def(py::init([](int dimms, const std::string& spec, int ranks, double tflops, int64_t buffer_bytes,
                       double link_gbps, double timeout_ns, int ring, const std::string& mode,
                       double stream_share) {
             return PyFleet{std::make_shared<Fleet>(config_of(spec, ranks, tflops, buffer_bytes, link_gbps,
                                                              timeout_ns, ring, mode, stream_share),
                                                    dimms),
                            {}};
           }),
           py::arg("dimms"), py::arg("spec"), py::arg("ranks"), py::arg("tflops"), py::arg("buffer_bytes"),
           py::arg("link_gbps"), py::arg("timeout_ns"), py::arg("ring"), py::arg("mode"),
           py::arg("stream_share"))
      .def("place",
           [](PyFleet& self, int64_t expert, const CoreExpertShape& shape, const py::object& buffer, int dimm,
              const std::string& layout) {
             py::buffer_info info = contiguous(buffer);
             const auto bytes = bytes_in(info);
             check(std::ssize(bytes) == shape.shape.expert_bytes(), "all bytes of the packed expert",
                   std::ssize(bytes), "its part of ExpertLayer.memory");
             const std::shared_ptr<const std::byte> data(keep(std::move(info)), bytes.data());
             self.fleet->place(expert, shape.shape, shape.number, data, dimm, layout_named(layout));
           })
      .def("remove", [](PyFleet& self, int64_t expert) { self.fleet->remove(expert); })
      .def("where",
           [](PyFleet& self, int64_t expert) {
             const Location found = self.fleet->where(expert);
             return std::tuple(found.dimm, found.slot, name_of(found.layout), found.bytes);
           })
      .def("address_of", [](PyFleet& self, int64_t expert) { return self.fleet->address_of(expert); })
      .def("bytes_of",
           [](PyFleet& self, int64_t expert) {
             const auto bytes = self.fleet->read(expert);
             return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
           })
      .def("run", &run)
      .def("migrate",
           [](PyFleet& self, int64_t expert, int to) {
             const py::gil_scoped_release unlocked;
             return self.fleet->migrate(expert, to);
           })
      .def("relayout",
           [](PyFleet& self, int64_t expert, const std::string& layout, int to) {
             const Layout wanted = layout_named(layout);
             const py::gil_scoped_release unlocked;
             return self.fleet->relayout(expert, wanted, to);
           })
      .def("evacuate",
           [](PyFleet& self, int from) {
             const py::gil_scoped_release unlocked;
             return self.fleet->evacuate(from);
           })
      .def("reset", [](PyFleet& self, int dimm) { self.fleet->reset(dimm); })
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
  bind_dimm(fleet);
}

}  // namespace trimoe::ndp
