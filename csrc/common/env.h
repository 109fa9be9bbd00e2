// Every environment variable that the native code reads, documented once.
#pragma once

#include <string>

namespace trimoe::env {

// TRIMOE_CPU_ISA: name of the kernel-table entry to use instead of the best supported one.
// Empty when unset.
std::string cpu_isa();

}  // namespace trimoe::env
