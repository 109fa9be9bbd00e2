#pragma once

#include "common/kernel.h"

namespace trimoe::cpu::avx512 {

extern const Kernel f32;
extern const Kernel bf16_fma;
extern const Kernel bf16_dot;  // needs AVX512_BF16 as well

}  // namespace trimoe::cpu::avx512
