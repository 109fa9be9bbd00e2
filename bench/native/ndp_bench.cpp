// How fast the DIMM-NDP emulator itself is: DRAM bursts per second of this machine, on one core.
#include <string>

#include <benchmark/benchmark.h>

#include "ndp/dram/measure.h"
#include "ndp/timing/expert.h"
#include "ndp/timing/step.h"
#include "ndp/timing/stream.h"

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

// What the emulator knows before it is asked.
enum class Known { kNothing, kStream, kAnswer };

void expert(benchmark::State& state, const std::string& spec, Known known) {
  const ExpertCase one{5120, 1536, 1};
  double total_ns = 0;
  for (auto _ : state) {
    if (known == Known::kNothing) keep_streams(32 << 20);
    const auto time = known == Known::kAnswer ? expert_time : simulate_expert;
    total_ns = time(dram_spec(spec), {}, one).total_ns();
  }
  state.counters["simulated_us"] = total_ns * 1e-3;
}

// 60 layers of 160 experts on 16 DIMMs, each with one to four tokens.
void step(benchmark::State& state, const std::string& spec) {
  const StepCase step{60, 160};
  std::vector<int64_t> tokens, home;
  Random random(1);
  for (int64_t i = 0; i < step.layers * step.experts; ++i) {
    tokens.push_back(1 + random.below(4));
    home.push_back(i % step.experts % step.dimms);
  }
  double total_ns = 0;
  for (auto _ : state)
    total_ns = simulate_step(dram_spec(spec), {}, {5120, 1536}, step, tokens, home).total_ns;
  state.counters["simulated_us"] = total_ns * 1e-3;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const DramSpec& spec : dram_specs()) {
    const std::string name(spec.name);
    for (const std::string_view pattern : kPatternNames)
      benchmark::RegisterBenchmark((name + "/" + std::string(pattern)).c_str(), dram, spec,
                                   pattern_named(pattern));
    const std::string expert_name = name + "/expert_5120x1536";
    benchmark::RegisterBenchmark(expert_name.c_str(), expert, name, Known::kNothing);
    benchmark::RegisterBenchmark((expert_name + "/stream_known").c_str(), expert, name, Known::kStream);
    benchmark::RegisterBenchmark((expert_name + "/remembered").c_str(), expert, name, Known::kAnswer);
    benchmark::RegisterBenchmark((name + "/step_60x160").c_str(), step, name);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
