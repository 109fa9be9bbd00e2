#pragma once

#include "cpu/kernel/kernel.h"

namespace trimoe::cpu::ref {

extern const Kernel f32;
extern const Kernel bf16;
extern const Kernel int8;
extern const Kernel int4;      // activations in 8 bits
extern const Kernel int4_a16;  // activations in bf16
extern const Kernel fp8;
extern const Kernel mxfp4;

}  // namespace trimoe::cpu::ref
