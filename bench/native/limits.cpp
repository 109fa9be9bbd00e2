#include "limits.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <vector>

#include "common/error.h"
#include "cpu/kernel_table.h"
#include "cpu/probe.h"

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
#if defined(__x86_64__)
  static const double measured = [] {
    constexpr int kMultiplies = 20'000'000, kLatency = 3;  // of a 64-bit multiply, on every x86-64 since 2008
    double best = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      uint64_t value = 3;
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < kMultiplies; i += 4)
        asm volatile("imul %0, %0\n imul %0, %0\n imul %0, %0\n imul %0, %0" : "+r"(value));
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      best = std::max(best, kMultiplies * kLatency / elapsed.count() * 1e-9);
    }
    return best;
  }();
  return measured;
#else
  return 0.0;
#endif
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
