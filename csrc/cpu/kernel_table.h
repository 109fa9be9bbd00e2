// The table of kernels: one row per instruction set, best first, chosen once at run time.
#pragma once

#include <string>
#include <vector>

#include "common/kernel.h"
#include "cpu/features.h"

namespace trimoe::cpu {

struct TableEntry {
  const char* isa;             // the name TRIMOE_CPU_ISA takes
  std::vector<Feature> needs;  // all of them
  const Kernel* f32;
  const Kernel* bf16;
  // int8, int4, fp8 and mxfp4 get a column each when their kernels exist.

  bool supported() const;
  std::string reason() const;  // why it cannot be used here, or "supported"
  const Kernel& kernel(DType weights) const;
};

// Every entry this build has, in order of preference on this processor. Ends with "ref".
const std::vector<TableEntry>& kernel_table();

// The entry of that name. Throws Error for a name that the table lacks or this machine cannot run;
// `what` says who asked for it.
const TableEntry& entry_named(const std::string& isa, const char* what);

// The entry in use: TRIMOE_CPU_ISA, else the first supported one. Decided at the first call.
const TableEntry& selected_entry();

}  // namespace trimoe::cpu
