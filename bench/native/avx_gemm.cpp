// The gemms of one thread on vector registers: of TRIMOE_CPU_ISA, or of the best entry without tiles. Beside
// them oneDNN's, on the same instruction sets unless ONEDNN_MAX_CPU_ISA says otherwise.
#include <cstdlib>
#include <string_view>

#include "cpu/dispatch/kernel_table.h"
#include "gemm_bench.h"
#if defined(TRIMOE_BENCH_ONEDNN)
#include "onednn_gemm.h"
#endif

int main(int argc, char** argv) {
  using namespace trimoe;
  for (const cpu::TableEntry& entry : cpu::kernel_table())
    if (entry.supported() && std::string_view(entry.isa) != "amx") {
      setenv("TRIMOE_CPU_ISA", entry.isa, 0);  // before the core chooses
      break;
    }
  setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 0);
  return bench::run(argc, argv, [] {
    bench::register_gemms(false, nullptr);
#if defined(TRIMOE_BENCH_ONEDNN)
    bench::register_onednn_gemms();
#endif
  });
}
