// Reading memory with plain loads: each size and number of threads beside the machine's best.
#include <algorithm>
#include <string>
#include <thread>

#include "cpu/ffn/probe.h"
#include "limits.h"

namespace {

using namespace trimoe::bench;

constexpr int kPasses = 10;  // the fastest of them: one that a neighbour disturbs says nothing of the machine

void run_read(benchmark::State& state, int64_t bytes, int threads, int all_threads) {
  for (auto _ : state) {
    double gbps[kPasses];
    trimoe::cpu::probe_bandwidth(bytes, kPasses, threads, gbps);
    state.SetIterationTime(static_cast<double>(bytes) / *std::max_element(gbps, gbps + kPasses) * 1e-9);
  }
  report(state, {0, static_cast<double>(bytes)}, 0, read_gbps(all_threads));
}

void register_all() {
  const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int threads = 1; threads <= all; threads = threads < all ? std::min(2 * threads, all) : all + 1)
    for (const int64_t mib : {1, 16, 512}) {
      const std::string name = "read/threads:" + std::to_string(threads) + "/MiB:" + std::to_string(mib);
      benchmark::RegisterBenchmark(name.c_str(), run_read, mib << 20, threads, all)
          ->UseManualTime()
          ->Iterations(3)
          ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, register_all); }
