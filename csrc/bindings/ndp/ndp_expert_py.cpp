// Experts in time, for trimoe._ndp: one, its moves, and all of a decode step.
#include <pybind11/stl.h>

#include "bindings/ndp/ndp_py.h"
#include "ndp/sharing/sharing.h"
#include "ndp/timing/closed_form.h"
#include "ndp/timing/relayout.h"
#include "ndp/timing/step.h"
#include "ndp/timing/stream.h"

namespace trimoe::ndp {
namespace {

CoreConfig core_of(int ranks, double tflops, int64_t buffer_bytes, double link_gbps) {
  CoreConfig core;
  core.ranks = ranks;
  core.tflops = tflops;
  core.buffer_bytes = buffer_bytes;
  core.link_gbps = link_gbps;
  return core;
}

py::dict expert(const std::string& spec, int64_t hidden, int64_t inter, int64_t tokens,
                double weight_bytes_each, int ranks, double tflops, int64_t buffer_bytes, int striped_over,
                double link_gbps, double share, double closed_form_share, bool remember) {
  const DramSpec& grade = dram_spec(spec);
  const CoreConfig core = core_of(ranks, tflops, buffer_bytes, link_gbps);
  const ExpertCase one{hidden, inter, tokens, weight_bytes_each, striped_over, share};
  ExpertCase by_formula = one;
  by_formula.stream_share = closed_form_share;
  const ExpertTime found = [&] {
    const py::gil_scoped_release unlocked;
    return remember ? expert_time(grade, core, one) : simulate_expert(grade, core, one);
  }();
  py::dict result;
  result["command_ns"] = found.command_ns;
  result["broadcast_ns"] = found.broadcast_ns;
  result["gate_up_ns"] = found.gate_up_ns;
  result["down_ns"] = found.down_ns;
  result["gather_ns"] = found.gather_ns;
  result["reduce_ns"] = found.reduce_ns;
  result["result_ns"] = found.result_ns;
  result["total_ns"] = found.total_ns();
  result["closed_form_ns"] = expert_closed_form_ns(grade, core, by_formula);
  result["dram_nj"] = found.dram_nj;
  result["channel_nj"] = found.channel_nj;
  result["link_nj"] = found.link_nj;
  result["passes"] = found.passes;
  result["weight_bytes"] = found.weight_bytes;
  result["link_bytes"] = found.link_bytes;
  return result;
}

py::dict relayout(const std::string& spec, int64_t hidden, int64_t inter, double weight_bytes_each, int ranks,
                  int dimms, double link_gbps, bool migrate) {
  const DramSpec& grade = dram_spec(spec);
  const CoreConfig core = core_of(ranks, CoreConfig{}.tflops, CoreConfig{}.buffer_bytes, link_gbps);
  const RelayoutTime found = [&] {
    const py::gil_scoped_release unlocked;
    return relayout_time(grade, core, {hidden, inter, weight_bytes_each, dimms, migrate});
  }();
  py::dict result;
  result["weight_bytes"] = found.weight_bytes;
  result["link_bytes"] = found.link_bytes;
  result["link_ns"] = found.link_ns;
  result["link_closed_form_ns"] = found.link_closed_form_ns;
  result["host_ns"] = found.host_ns;
  result["host_closed_form_ns"] = found.host_closed_form_ns;
  result["link_nj"] = found.link_nj;
  result["channel_nj"] = found.channel_nj;
  return result;
}

py::dict step(const std::string& spec, int64_t hidden, int64_t inter, double weight_bytes_each, int ranks,
              double tflops, int64_t buffer_bytes, int64_t layers, const std::vector<int64_t>& tokens,
              const std::vector<int64_t>& home, int dimms, int dimms_per_channel) {
  const DramSpec& grade = dram_spec(spec);
  const CoreConfig core = core_of(ranks, tflops, buffer_bytes, CoreConfig{}.link_gbps);
  const int64_t experts = layers > 0 ? std::ssize(tokens) / layers : 0;
  const StepTime found = [&] {
    const py::gil_scoped_release unlocked;
    return simulate_step(grade, core, {hidden, inter, 1, weight_bytes_each},
                         {layers, experts, dimms, dimms_per_channel}, tokens, home);
  }();
  py::dict result;
  result["total_ns"] = found.total_ns;
  result["layer_ns"] = py::tuple(py::cast(found.layer_ns));
  result["busy_ns"] = py::tuple(py::cast(found.busy_ns));
  result["channel_wait_ns"] = found.channel_wait_ns;
  result["dram_nj"] = found.dram_nj;
  result["channel_nj"] = found.channel_nj;
  result["experts_run"] = found.experts_run;
  return result;
}

// A stream burst by burst, simulated afresh: for tests. Per pass the clocks of gate and up, those of down,
// and (reads, activates, refreshes).
py::list weight_stream(const std::string& spec, int64_t matrix_bursts, int passes) {
  const DramSpec& grade = dram_spec(spec);
  WeightStream stream(grade, matrix_bursts);
  const auto ends = [&](const std::vector<Run>& runs) {
    std::vector<int64_t> clocks;
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.bursts; ++i) clocks.push_back(run.first_end + i * grade.timing.nBL);
    return clocks;
  };
  py::list result;
  for (int i = 0; i < passes; ++i) {
    const StreamPass pass = stream.next();
    result.append(py::make_tuple(ends(pass.gate_up), ends(pass.down),
                                 py::make_tuple(pass.reads, pass.activates, pass.refreshes)));
  }
  return result;
}

}  // namespace

void bind_expert(py::module_& m) {
  m.def("expert", &expert, py::arg("spec"), py::arg("hidden"), py::arg("inter"), py::arg("tokens"),
        py::arg("weight_bytes_each"), py::arg("ranks"), py::arg("tflops"), py::arg("buffer_bytes"),
        py::arg("striped_over") = 1, py::arg("link_gbps") = 25.0, py::arg("stream_share") = 1.0,
        py::arg("closed_form_share") = 1.0, py::arg("remember") = true);
  m.def("relayout", &relayout, py::arg("spec"), py::arg("hidden"), py::arg("inter"),
        py::arg("weight_bytes_each"), py::arg("ranks"), py::arg("dimms"), py::arg("link_gbps"),
        py::arg("migrate"));
  m.def("step", &step, py::arg("spec"), py::arg("hidden"), py::arg("inter"), py::arg("weight_bytes_each"),
        py::arg("ranks"), py::arg("tflops"), py::arg("buffer_bytes"), py::arg("layers"), py::arg("tokens"),
        py::arg("home"), py::arg("dimms"), py::arg("dimms_per_channel"));
  m.def("weight_stream", &weight_stream, py::arg("spec"), py::arg("matrix_bursts"), py::arg("passes"));
  m.def("keep_streams", &keep_streams, py::arg("max_bytes"));
  m.def(
      "closed_form_share",
      [](const std::string& spec, const std::string& mode, double host_gbps) {
        return stream_share(dram_spec(spec), mode_named(mode), host_gbps);
      },
      py::arg("spec"), py::arg("mode"), py::arg("host_gbps"));
  m.def(
      "ridge_tokens",
      [](const std::string& spec, double weight_bytes_each, int ranks, double tflops) {
        return ridge_tokens(dram_spec(spec), core_of(ranks, tflops, 0, CoreConfig{}.link_gbps),
                            weight_bytes_each);
      },
      py::arg("spec"), py::arg("weight_bytes_each"), py::arg("ranks"), py::arg("tflops"));
}

}  // namespace trimoe::ndp
