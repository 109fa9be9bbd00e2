// What the processor has and what the operating system lets us use. The only probe there is.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace trimoe::cpu {

// Instruction-set extensions that a kernel-table entry may ask for.
enum class Feature : int {
  kAvx2,
  kFma,
  kAvxVnni,
  kAvx512f,
  kAvx512bw,
  kAvx512dq,
  kAvx512vl,
  kAvx512Bf16,
  kAvx512Vnni,
  kAmxTile,
  kAmxBf16,
  kAmxInt8,
  kCount
};

const char* name_of(Feature feature);

struct Features {
  std::string arch;    // "x86_64", "aarch64", ...
  std::string vendor;  // CPUID vendor string, empty elsewhere
  std::string brand;
  uint32_t cpuid = 0;                                      // bit per Feature that the processor reports
  uint64_t xcr0 = 0;                                       // register states that the system saves
  bool os_avx = false, os_avx512 = false, os_amx = false;  // read from xcr0
  bool amx_permission = false;  // the kernel grants this process tile data (Linux asks for a request)
  bool amx_emulated = false;    // asked for by TRIMOE_AMX_EMULATED: then no permission is requested
  bool amx_trap = false;        // what emulates is loaded

  bool reports(Feature feature) const { return (cpuid >> static_cast<int>(feature)) & 1u; }
  bool usable(Feature feature) const { return lack(feature).empty(); }
  std::string lack(Feature feature) const;  // why it cannot be used, empty if it can
};

// Probed once, at the first call.
const Features& features();

}  // namespace trimoe::cpu
