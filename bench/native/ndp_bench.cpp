// How fast the DIMM-NDP emulator itself is: DRAM bursts per second of this machine, on one core.
#include <string>

#include <benchmark/benchmark.h>

#include "ndp/expert.h"
#include "ndp/dram/measure.h"

namespace {

using namespace trimoe::ndp;

void dram(benchmark::State& state, const DramSpec& spec, Pattern pattern) {
  BandwidthCase one;
  one.pattern = pattern;
  one.bursts = 100'000;
  double gbps = 0;
  for (auto _ : state) gbps = measure_bandwidth(spec, one).gbps;
  state.counters["bursts/s"] =
      benchmark::Counter(static_cast<double>(one.bursts), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["simulated_GB/s"] = gbps;
  state.counters["peak_GB/s"] = spec.peak_gbps();
}

void expert(benchmark::State& state, const DramSpec& spec) {
  const ExpertCase one{5120, 1536, 1};
  double total_ns = 0;
  for (auto _ : state) total_ns = simulate_expert(spec, {}, one).total_ns();
  state.counters["simulated_us"] = total_ns * 1e-3;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const DramSpec& spec : dram_specs()) {
    const std::string name(spec.name);
    for (const Pattern pattern : {Pattern::kStream, Pattern::kRowMajor, Pattern::kRandom})
      benchmark::RegisterBenchmark(
          (name + "/" + std::string(kPatternNames[static_cast<size_t>(pattern)])).c_str(), dram, spec,
          pattern);
    benchmark::RegisterBenchmark((name + "/expert_5120x1536").c_str(), expert, spec);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
