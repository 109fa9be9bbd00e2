// trimoe._cpu: the control API of the CPU domain. Off the hot path: the op itself is moe_forward.cpp.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/cpu/activation_py.h"
#include "bindings/cpu/keep_py.h"
#include "bindings/cpu/source_py.h"
#include "bindings/errors_py.h"
#include "common/names.h"
#include "common/numa.h"
#include "common/own_threads.h"
#include "cpu/dispatch/kernel_table.h"
#include "cpu/ffn/expert_ffn.h"
#include "cpu/ffn/layer_cycles.h"
#include "cpu/ffn/probe.h"
#include "packed/layer.h"
#include "runtime/layer.h"

namespace py = pybind11;
using namespace trimoe;
using namespace trimoe::cpu;

namespace {

std::shared_ptr<Layer> layer_of(int64_t handle) { return runtime::find_layer(handle).packed; }

Format format_named(const std::string& name) {
  return static_cast<Format>(index_of(kFormatFacts, name, "weights", &FormatFacts::name));
}

py::dict features_dict() {
  const Features& found = features();
  py::dict reported;
  for (int i = 0; i < static_cast<int>(Feature::kCount); ++i)
    reported[name_of(static_cast<Feature>(i))] = found.reports(static_cast<Feature>(i));
  py::dict os;
  os["avx"] = found.os_avx;
  os["avx512"] = found.os_avx512;
  os["amx"] = found.os_amx;
  py::dict result;
  result["arch"] = found.arch;
  result["vendor"] = found.vendor;
  result["brand"] = found.brand;
  result["xcr0"] = found.arch == "x86_64" ? py::object(py::int_(found.xcr0)) : py::object(py::none());
  result["cpuid"] = reported;
  result["os"] = os;
  result["amx_permission"] = found.amx_permission;
  return result;
}

py::list table_list() {
  const TableEntry& chosen = selected_entry();
  std::vector<std::string> formats;
  formats.reserve(kFormatFacts.size());
  for (const FormatFacts& format : kFormatFacts) formats.emplace_back(format.name);
  py::list result;
  for (const TableEntry& entry : kernel_table()) {
    py::dict row;
    row["isa"] = entry.isa;
    row["weights"] = formats;  // every entry has a kernel for each
    row["supported"] = entry.supported();
    row["reason"] = &entry == &chosen ? "used" : entry.reason();
    row["chosen"] = &entry == &chosen;
    result.append(row);
  }
  return result;
}

LayerShape make_shape(int64_t experts, int64_t hidden, int64_t inter, const std::string& weights,
                      int32_t group, const std::string& activations, const std::string& activation,
                      bool gated, bool bias, float alpha, float limit) {
  constexpr std::array<std::string_view, 3> kActivations = {"auto", "int8", "bf16"};
  index_of(kActivations, activations, "activations");
  const Format format = format_named(weights);
  const bool integer = format == Format::kInt8 || format == Format::kInt4;
  LayerShape shape;
  static_cast<ExpertShape&>(shape) = {
      hidden, inter, {format, group}, {activation_named(activation), gated, alpha, limit}, bias};
  shape.experts = experts;
  shape.int8_activations = activations == "auto" ? integer : activations == "int8";
  shape.validate();
  return shape;
}

// The packed bytes of a layer as a read-only buffer, which keeps the layer alive.
struct LayerMemory {
  std::shared_ptr<Layer> layer;
};

py::buffer_info buffer_of(LayerMemory& memory) {
  const auto bytes = static_cast<py::ssize_t>(memory.layer->shape().layer_bytes());
  return {const_cast<std::byte*>(memory.layer->data()), 1, "B", 1, {bytes}, {1}, true};
}

void pack(int64_t handle, int64_t expert, const py::object& gate, const py::object& up,
          const py::object& down, const py::object& gate_bias, const py::object& up_bias,
          const py::object& down_bias) {
  const auto layer = layer_of(handle);
  const ExpertSource source{view_of(gate),      view_of(up),      view_of(down),
                            view_of(gate_bias), view_of(up_bias), view_of(down_bias)};
  const py::gil_scoped_release unlocked;
  pack_expert(layer->shape(), source, layer->mutable_expert(expert));
}

// What 64 words all over some memory are: that much changes when all of it is written.
uint64_t sample(uintptr_t address, int64_t bytes) {
  constexpr int64_t kPlaces = 64;
  const int64_t size = std::min<int64_t>(bytes, sizeof(uint64_t));
  uint64_t hash = 0;
  if (size <= 0) return hash;
  for (int64_t place = 0; place < kPlaces; ++place) {
    uint64_t word = 0;
    std::memcpy(&word, reinterpret_cast<const std::byte*>(address) + (bytes - size) / (kPlaces - 1) * place,
                static_cast<size_t>(size));
    hash = std::rotl(hash, 7) * 0x9e3779b97f4a7c15u + word;
  }
  return hash;
}

// The op on a named table entry and its own threads, for checks: no torch, any entry, any thread count.
void run_entry(const std::string& isa, int64_t handle, const py::object& hidden, const py::object& ids,
               const py::object& weights, uintptr_t out, int threads) {
  const auto layer = layer_of(handle);
  const LayerShape& shape = layer->shape();
  const Kernel& kernel = entry_named(isa, "isa").kernel(shape.weights.format, shape.int8_activations);
  const SourceArray x = tensor_of(hidden, "hidden of fp32, bf16 or fp16, that can be read");
  check(x.cols == shape.hidden, "hidden of shape [T, H]", x.cols, "the H of the layer");
  const auto [id_array, id_bytes] = ids_of(ids);
  const SourceArray weight_array = tensor_of(weights, "weights of fp32, bf16 or fp16, that can be read");
  const RouterOutput router = router_of(id_array, id_bytes, weight_array, x.rows);
  SourceArray result = x;
  result.data = reinterpret_cast<const void*>(out);
  const int64_t item_bytes = size_of(dtype_of(x)), out_bytes = x.rows * x.cols * item_bytes;
  check_readable(result, item_bytes, "an output that can be written");
  check_apart(out, out_bytes, x, item_bytes);
  check_apart(out, out_bytes, id_array, id_bytes);
  check_apart(out, out_bytes, weight_array, size_of(dtype_of(weight_array)));
  check(threads >= 1, "at least one thread", threads, "1");
  const RowSource rows{x.data, dtype_of(x), x.row_stride, x.col_stride, x.cols};
  const py::gil_scoped_release unlocked;
  expert_ffn(*layer, kernel, OwnThreads(threads), rows, router, x.rows, reinterpret_cast<void*>(out));
}

py::dict stats_dict(int64_t handle) {
  const auto layer = layer_of(handle);
  const LayerStats& stats = layer->stats;
  py::dict result;
  result["calls"] = stats.calls.load();
  result["tokens"] = stats.tokens.load();
  result["rows"] = stats.rows.load();
  result["experts_loaded"] = stats.experts_loaded.load();
  result["weight_bytes"] = stats.weight_bytes.load();
  result["flops"] = stats.flops.load();
  result["busy_ns"] = stats.busy_ns.load();
  std::vector<int64_t> rows(layer->expert_rows.begin(), layer->expert_rows.end());
  result["expert_rows"] = rows;
  return result;
}

std::string repeats_text(int repeats, int threads) {
  return std::to_string(repeats) + " repeats, " + std::to_string(threads) + " threads";
}

std::vector<double> bandwidth(int64_t bytes, int repeats, int threads) {
  check(
      bytes >= 1 << 20 && repeats >= 1 && threads >= 1, "at least 1 MiB, 1 repeat, 1 thread",
      [&] { return std::to_string(bytes) + " bytes, " + repeats_text(repeats, threads); }, "256 MiB");
  std::vector<double> gbps(static_cast<size_t>(repeats));
  const py::gil_scoped_release unlocked;
  probe_bandwidth(bytes, repeats, threads, gbps.data());
  return gbps;
}

std::vector<double> flops(const std::string& weights, double seconds, int repeats, int threads) {
  check(
      seconds > 0 && repeats >= 1 && threads >= 1, "a positive time, 1 repeat, 1 thread",
      [&] { return std::to_string(seconds) + " s, " + repeats_text(repeats, threads); }, "0.05 s, 5 repeats");
  const Format format = format_named(weights);
  std::vector<double> gflops(static_cast<size_t>(repeats));
  const py::gil_scoped_release unlocked;
  probe_flops(format, seconds, repeats, threads, gflops.data());
  return gflops;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() =
      "Control API of the CPU domain; see trimoe.layer.op and trimoe.hardware.cpu for the typed wrappers.";
  m.attr("LAYOUT_VERSION") = kLayoutVersion;
  m.attr("MAX_TOPK") = kMaxTopk;
  m.attr("MAX_PAIRS") = kMaxPairs;
  m.def("features", &features_dict);
  m.def("kernel_table", &table_list);
  m.def("selected_isa", [] { return selected_entry().isa; });
  m.def("numa_nodes", [] {
    std::vector<std::vector<int>> cpus;
    for (const NumaNode& node : numa_nodes()) cpus.push_back(node.cpus);
    return cpus;
  });
  m.def("probe_bandwidth_gbps", &bandwidth, py::arg("bytes"), py::arg("repeats"), py::arg("threads"));
  m.def("probe_gflops", &flops, py::arg("weights"), py::arg("seconds"), py::arg("repeats"),
        py::arg("threads"));

  m.def("probe_clock_ghz", [] {
    const py::gil_scoped_release unlocked;
    return probe_clock_ghz();
  });

  py::class_<LayerShape>(m, "LayerShape")
      .def(py::init(&make_shape), py::arg("experts"), py::arg("hidden"), py::arg("inter"), py::arg("weights"),
           py::arg("group") = 0, py::arg("activations") = "auto", py::arg("activation") = "silu",
           py::arg("gated") = true, py::arg("bias") = false, py::arg("alpha") = 1.702f,
           py::arg("limit") = 7.0f)
      .def_property_readonly("expert_bytes", &LayerShape::expert_bytes)
      .def_property_readonly("layer_bytes", &LayerShape::layer_bytes)
      .def("tile_cycles", &layer_cycles, py::arg("expert_rows"), py::arg("bytes_per_cycle"));

  m.def("create_layer", [](const LayerShape& shape) {
    const py::gil_scoped_release unlocked;
    return runtime::register_layer(std::make_shared<Layer>(shape));
  });
  m.def("map_layer", [](const LayerShape& shape, uintptr_t address, py::object owner) {
    check(address != 0, "the address of packed experts", "null", "the address of a mapped file");
    auto kept = keep(std::move(owner));
    const py::gil_scoped_release unlocked;
    return runtime::register_layer(
        std::make_shared<Layer>(shape, reinterpret_cast<const std::byte*>(address), std::move(kept)));
  });
  m.def("pack_expert", &pack, py::arg("handle"), py::arg("expert"), py::arg("gate"), py::arg("up"),
        py::arg("down"), py::arg("gate_bias") = py::none(), py::arg("up_bias") = py::none(),
        py::arg("down_bias") = py::none());
  m.def("sample", &sample, py::arg("address"), py::arg("bytes"));
  m.def("run_entry", &run_entry, py::arg("isa"), py::arg("handle"), py::arg("hidden"), py::arg("ids"),
        py::arg("weights"), py::arg("out"), py::arg("threads") = 1);
  py::class_<LayerMemory>(m, "LayerMemory", py::buffer_protocol()).def_buffer(&buffer_of);
  m.def("layer_memory", [](int64_t handle) { return LayerMemory{layer_of(handle)}; });
  m.def("layer_sizes", [](int64_t handle) {
    const auto layer = layer_of(handle);
    return std::pair(layer->shape().experts, layer->shape().hidden);
  });
  m.def("destroy_layer", &runtime::unregister_layer);
  m.def("layer_stats", &stats_dict);
  m.def("reset_stats", [](int64_t handle) { layer_of(handle)->reset_stats(); });
  translate_errors();
}
