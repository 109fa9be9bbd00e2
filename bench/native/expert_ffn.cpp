// The whole expert FFN on all processors: shapes of one layer, uniform routing, caches cold where the layer
// is larger than they are.
#include "cpu/ffn/expert_ffn.h"

#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include "cpu/dispatch/kernel_table.h"
#include "limits.h"
#include "packed.h"

namespace {

using namespace trimoe;
using namespace trimoe::bench;

constexpr int64_t kExperts = 32, kHidden = 2048, kInter = 768, kTopk = 8;

std::vector<int64_t> uniform_ids(int64_t tokens, std::minstd_rand& generator) {
  std::vector<int64_t> ids;
  for (int64_t token = 0; token < tokens; ++token) {
    std::set<int64_t> chosen;
    while (std::ssize(chosen) < kTopk) chosen.insert(static_cast<int64_t>(generator()) % kExperts);
    ids.insert(ids.end(), chosen.begin(), chosen.end());
  }
  return ids;
}

void run_ffn(benchmark::State& state, const Variant& variant, int64_t tokens, int threads) {
  const auto layer = random_layer(kExperts, kHidden, kInter, variant);
  const Kernel& kernel = cpu::selected_entry().kernel(variant.weights.format, variant.int8_rows);
  const std::vector<float> hidden = random_values(tokens * kHidden);
  const std::vector<float> weights(static_cast<size_t>(tokens * kTopk), 1.0f / kTopk);
  std::vector<float> out(hidden.size());
  const OpenMpThreads pool(threads);
  std::minstd_rand generator(1);
  std::vector<std::vector<int64_t>> routings(16);
  for (auto& ids : routings) ids = uniform_ids(tokens, generator);
  size_t next = 0;
  for (auto _ : state) {
    const auto& ids = routings[next++ % routings.size()];
    const cpu::RouterOutput router{ids.data(), true, kTopk, 1, weights.data(), DType::kF32, kTopk, 1, kTopk};
    const RowSource rows{hidden.data(), DType::kF32, kHidden, 1, kHidden};
    cpu::expert_ffn(*layer, kernel, pool, rows, router, tokens, out.data());
  }
  const auto calls = static_cast<double>(layer->stats.calls);
  report(state,
         {static_cast<double>(layer->stats.flops) / calls,
          static_cast<double>(layer->stats.weight_bytes) / calls},
         peak_gflops(variant.weights, threads), read_gbps(threads));
}

void register_all() {
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (const Variant& variant : variants())
    for (const int64_t tokens : {1, 4, 16, 64, 512}) {
      const std::string name = variant.name + "/tokens:" + std::to_string(tokens);
      benchmark::RegisterBenchmark(name.c_str(), run_ffn, variant, tokens, threads)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv, register_all); }
