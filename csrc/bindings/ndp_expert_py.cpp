// One expert in time, for trimoe._ndp.
#include "bindings/ndp_py.h"
#include "ndp/closed_form.h"

namespace trimoe::ndp {
namespace {

py::dict expert(const std::string& spec, int64_t hidden, int64_t inter, int64_t tokens,
                double weight_bytes_each, int ranks, double tflops, int64_t buffer_bytes) {
  const DramSpec& grade = dram_spec(spec);
  CoreConfig core;
  core.ranks = ranks;
  core.tflops = tflops;
  core.buffer_bytes = buffer_bytes;
  const ExpertCase one{hidden, inter, tokens, weight_bytes_each};
  const ExpertTime found = [&] {
    const py::gil_scoped_release unlocked;
    return simulate_expert(grade, core, one);
  }();
  py::dict result;
  result["command_ns"] = found.command_ns;
  result["broadcast_ns"] = found.broadcast_ns;
  result["gate_up_ns"] = found.gate_up_ns;
  result["down_ns"] = found.down_ns;
  result["reduce_ns"] = found.reduce_ns;
  result["result_ns"] = found.result_ns;
  result["total_ns"] = found.total_ns();
  result["closed_form_ns"] = expert_closed_form_ns(grade, core, one);
  result["dram_nj"] = found.dram_nj;
  result["channel_nj"] = found.channel_nj;
  result["passes"] = found.passes;
  result["weight_bytes"] = found.weight_bytes;
  return result;
}

}  // namespace

void bind_expert(py::module_& m) {
  m.def("expert", &expert, py::arg("spec"), py::arg("hidden"), py::arg("inter"), py::arg("tokens"),
        py::arg("weight_bytes_each"), py::arg("ranks"), py::arg("tflops"), py::arg("buffer_bytes"));
}

}  // namespace trimoe::ndp
