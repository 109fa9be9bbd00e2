// Kernels for AVX2 with FMA: plain, and with AVX-VNNI.
#pragma once

#include "cpu/kernel/kernel.h"

namespace trimoe::cpu::avx2 {

extern const Kernel f32, bf16, int8, int4, int4_a16, fp8, mxfp4;

namespace vnni {
extern const Kernel int8, int4;
}

}  // namespace trimoe::cpu::avx2
