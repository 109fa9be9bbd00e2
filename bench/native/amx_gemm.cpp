// The tile gemms of one thread: measured beside what the cycle model predicts (csrc/amx/cycles.h). Needs AMX.
#include <cstdlib>

#include "amx/cycles.h"
#include "gemm_bench.h"

namespace {

using namespace trimoe;
using namespace trimoe::bench;

// multiplier_pct: of 1024 bf16 or 2048 8-bit operations a cycle at the clock of this moment, as measured and
// as predicted.
void add_prediction(benchmark::State& state, const Variant& variant, const GemmShape& shape, int64_t rows) {
  if (clock_ghz() <= 0) return;
  const bool in_cache = &shape == &kGemmShapes[0];
  const amx::GemmCase one{variant.weights, variant.int8_rows, rows, shape.k, shape.panels()};
  const auto predicted = amx::predict(one, in_cache ? 0 : read_gbps(1) / clock_ghz());
  const double seconds = predicted.peak_cycles / clock_ghz() * 1e-9;
  state.counters["multiplier_pct"] =
      benchmark::Counter(100 * seconds, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["predicted_pct"] = 100 * predicted.fraction_of_peak();
}

}  // namespace

int main(int argc, char** argv) {
  setenv("TRIMOE_CPU_ISA", "amx", 0);  // before the core chooses
  return run(argc, argv, [] { register_gemms(true, add_prediction); });
}
