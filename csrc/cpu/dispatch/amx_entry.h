// The "amx" row of the kernel table: tiles where an expert has many rows, dot products where it has few.
#pragma once

#include "cpu/dispatch/kernel_table.h"

namespace trimoe::cpu {

KernelSet amx_kernels();

}  // namespace trimoe::cpu
