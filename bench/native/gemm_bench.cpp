#include "gemm_bench.h"

#include "cpu/dispatch/kernel_table.h"
#include "cpu/ffn/panel_walk.h"

namespace trimoe::bench {
namespace {

void run_gemm(benchmark::State& state, const Variant& variant, const GemmShape& shape, int64_t rows,
              Extra extra) {
  const Kernel& kernel = cpu::selected_entry().kernel(variant.weights.format, variant.int8_rows);
  const PackedGemm gemm(variant, kernel, rows, shape.k, shape.panels());
  const cpu::PanelRun all{gemm.weights.data(), shape.panels()};
  const cpu::KernelRegion region(kernel);
  for (auto _ : state)
    cpu::walk_panels(kernel, gemm.matrix, all, all, gemm.a.data(), gemm.a_stride, rows,
                     [](int64_t, const GemmArgs& done, int64_t) { benchmark::DoNotOptimize(done.c[0]); });
  const bool in_cache = &shape == &kGemmShapes[0];
  report(state, gemm_work(shape, rows, static_cast<double>(gemm.matrix.bytes())),
         peak_gflops(variant.weights, 1), in_cache ? 0 : read_gbps(1));
  if (extra) extra(state, variant, shape, rows);
}

}  // namespace

Work gemm_work(const GemmShape& shape, int64_t rows, double weight_bytes) {
  return {2.0 * static_cast<double>(rows * shape.k * shape.panels() * kPanelCols), weight_bytes};
}

void register_gemms(bool narrow_only, Extra extra) {
  for (const Variant& variant : variants())
    for (const GemmShape& shape : kGemmShapes)
      for (const int64_t rows : kGemmRows) {
        if (narrow_only && variant.weights.format == Format::kF32) continue;
        const std::string name = variant.name + "/" + shape.name + "/rows:" + std::to_string(rows);
        benchmark::RegisterBenchmark(name.c_str(), run_gemm, variant, std::ref(shape), rows, extra)
            ->UseRealTime();
      }
}

}  // namespace trimoe::bench
