#pragma once

#include "common/kernel.h"

namespace trimoe::cpu::avx2 {

extern const Kernel f32;
extern const Kernel bf16;

}  // namespace trimoe::cpu::avx2
