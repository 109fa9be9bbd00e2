// Kernels for AVX-512: plain, with VNNI, with BF16.
#pragma once

#include "cpu/kernel/kernel.h"

namespace trimoe::cpu::avx512 {

extern const Kernel f32, bf16, int8, int4, int4_a16, fp8, mxfp4;

namespace vnni {
extern const Kernel int8, int4;
}

namespace dot {  // pairs of bf16 by VDPBF16PS
extern const Kernel bf16, int4_a16, fp8, mxfp4;
}

}  // namespace trimoe::cpu::avx512
