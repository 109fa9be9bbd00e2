#include "limits.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

#include "common/error.h"
#include "cpu/dispatch/kernel_table.h"
#include "cpu/ffn/probe.h"

namespace trimoe::bench {
namespace {

constexpr int64_t kReadBytes = int64_t{512} << 20;  // beyond the last-level cache of most machines
constexpr int kRepeats = 5;
constexpr double kPeakSeconds = 0.05;

using benchmark::Counter;
constexpr auto kPerSecond = Counter::kIsIterationInvariantRate;

}  // namespace

double read_gbps(int threads) {
  static std::map<int, double> measured;
  const auto [found, is_new] = measured.try_emplace(threads);
  if (is_new) {
    std::vector<double> gbps(kRepeats);
    cpu::probe_bandwidth(kReadBytes, kRepeats, threads, gbps.data());
    found->second = std::ranges::max(gbps);
  }
  return found->second;
}

double peak_gflops(WeightFormat weights, int threads) {
  static std::map<std::pair<Format, int>, double> measured;  // the group changes it little
  const auto [found, is_new] = measured.try_emplace({weights.format, threads});
  if (is_new) {
    std::vector<double> gflops(kRepeats);
    cpu::probe_flops(weights, kPeakSeconds, kRepeats, threads, gflops.data());
    found->second = std::ranges::max(gflops);
  }
  return found->second;
}

double clock_ghz() {
  static const double measured = cpu::probe_clock_ghz();
  return measured;
}

void report(benchmark::State& state, const Work& work, double peak, double gbps) {
  const double gflop = work.flops * 1e-9, gb = work.weight_bytes * 1e-9;
  const auto share = [](double amount, double limit) { return Counter(100 * amount / limit, kPerSecond); };
  if (gflop > 0) state.counters["GFLOP/s"] = Counter(gflop, kPerSecond);
  if (gb > 0) state.counters["GB/s"] = Counter(gb, kPerSecond);
  if (gflop > 0 && peak > 0) {
    state.counters["peak_GFLOP/s"] = peak;
    state.counters["peak_pct"] = share(gflop, peak);
  }
  if (gb > 0 && gbps > 0) {
    state.counters["read_GB/s"] = gbps;
    state.counters["read_pct"] = share(gb, gbps);
  }
  if (peak > 0 && gbps > 0)
    state.counters["roofline_pct"] = Counter(100 * std::max(gflop / peak, gb / gbps), kPerSecond);
}

int run(int argc, char** argv, void (*register_all)()) {
  try {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::AddCustomContext("entry", cpu::selected_entry().isa);
    benchmark::AddCustomContext("processor", cpu::features().brand);
    register_all();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}

}  // namespace trimoe::bench
