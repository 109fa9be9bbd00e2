// The table of kernels: one row per instruction set, best first, chosen once at run time.
#pragma once

#include <string>
#include <vector>

#include "cpu/dispatch/features.h"
#include "cpu/kernel/kernel.h"

namespace trimoe::cpu {

// One kernel per format, two for int4: with rows in 8 bits (W4A8) and in 16 (W4A16).
struct KernelSet {
  const Kernel *f32, *bf16, *int8, *int4, *int4_a16, *fp8, *mxfp4;
};

struct TableEntry {
  const char* isa;             // the name TRIMOE_CPU_ISA takes
  std::vector<Feature> needs;  // all of them
  KernelSet kernels;

  bool supported() const;
  std::string reason() const;  // why it cannot be used here, or "supported"
  const Kernel& kernel(Format weights, bool int8_activations) const;
};

// Every entry this build has, in order of preference on this processor. Ends with "ref".
const std::vector<TableEntry>& kernel_table();

// The entry of that name. Throws Error for a name that the table lacks or this machine cannot run;
// `what` says who asked for it.
const TableEntry& entry_named(const std::string& isa, const char* what);

// The entry in use: TRIMOE_CPU_ISA, else the first supported one. Decided at the first call.
const TableEntry& selected_entry();

}  // namespace trimoe::cpu
