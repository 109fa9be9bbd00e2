#include "cpu/dispatch/amx_entry.h"

#include "amx/kernels.h"
#include "cpu/avx512/kernels.h"

namespace trimoe::cpu {
namespace {

constexpr int kSharedRows = 128;  // that share one expansion of the weights into tiles

// kFew: the AVX-512 kernel whose rows the tile gemm takes too.
template <const Kernel& kFew, void (*kTiles)(const GemmArgs&)>
const Kernel* with_tiles() {
  static const Kernel kernel = [] {
    Kernel k = kFew;
    k.max_rows = kSharedRows;
    k.few_rows = amx::kTilesFromRows - 1;
    k.blocks_k = true;
    k.enter = amx::enter;
    k.leave = amx::leave;
    k.gemm = [](const GemmArgs& args) { args.rows < amx::kTilesFromRows ? kFew.gemm(args) : kTiles(args); };
    return k;
  }();
  return &kernel;
}

}  // namespace

KernelSet amx_kernels() {
  namespace vnni = avx512::vnni;
  namespace dot = avx512::dot;
  return {&avx512::f32,
          with_tiles<dot::bf16, amx::gemm_bf16>(),
          with_tiles<vnni::int8, amx::gemm_int8>(),
          with_tiles<vnni::int4, amx::gemm_int4>(),
          with_tiles<dot::int4_a16, amx::gemm_int4_a16>(),
          with_tiles<dot::fp8, amx::gemm_fp8>(),
          with_tiles<dot::mxfp4, amx::gemm_mxfp4>()};
}

}  // namespace trimoe::cpu
