// AMX gemms, one per format; see GemmArgs. Rows as the AVX-512 dot-product kernels take them: bf16, or
// 8-bit codes. enter() and leave() hold the tile configuration between calls on one thread. The caller has
// made sure of AMX and its permission.
#pragma once

#include "cpu/kernel/kernel.h"

namespace trimoe::amx {

// A tile is multiplied in the same time for 16 rows as for one: with fewer rows than these per expert memory
// is the limit, and dot products are no slower.
inline constexpr int kTilesFromRows = 5;

void enter();
void leave();

void gemm_bf16(const GemmArgs& args);
void gemm_int8(const GemmArgs& args);
void gemm_int4(const GemmArgs& args);      // rows in 8 bits
void gemm_int4_a16(const GemmArgs& args);  // rows in bf16
void gemm_fp8(const GemmArgs& args);
void gemm_mxfp4(const GemmArgs& args);

}  // namespace trimoe::amx
