// Every environment variable that the native code reads, documented once.
#pragma once

#include <string>

namespace trimoe::env {

// TRIMOE_CPU_ISA: name of the kernel-table entry to use instead of the best supported one.
// Empty when unset.
std::string cpu_isa();

// TRIMOE_AMX_EMULATED: anything but "" and "0" takes the entry "amx" without asking CPUID or the system,
// for use under the trap of csrc/emulation only. Far slower than any other entry.
bool amx_emulated();

// TRIMOE_NUMA_FAKE: how many nodes the CPUs are divided among, for checks on a machine that has one.
// Empty when unset.
std::string numa_fake();

}  // namespace trimoe::env
