#pragma once

#include "cpu/dispatch/features.h"

namespace trimoe::cpu::x86 {

// Fills everything but the architecture name from CPUID, XGETBV and, for AMX, arch_prctl.
void probe(Features& found);

}  // namespace trimoe::cpu::x86
