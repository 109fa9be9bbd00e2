// AMX tile gemm for bf16 weights.
#pragma once

#include "common/kernel.h"

namespace trimoe::amx {

inline constexpr int kRows = 32;  // two row tiles of one call

// See GemmArgs: A and W in bf16, up to kRows rows. The caller has made sure of AMX and its permission.
void gemm_bf16(const GemmArgs& args);

}  // namespace trimoe::amx
