#include "cpu/dispatch/features.h"

#if defined(__x86_64__)
#include "cpu/dispatch/x86/probe.h"
#endif

namespace trimoe::cpu {
namespace {

Features probe() {
  Features found;
#if defined(__x86_64__)
  found.arch = "x86_64";
  x86::probe(found);
#elif defined(__aarch64__)
  found.arch = "aarch64";
#else
  found.arch = "unknown";
#endif
  return found;
}

}  // namespace

const char* name_of(Feature feature) {
  static constexpr const char* kNames[] = {"avx2",        "fma",      "avx_vnni", "avx512f",
                                           "avx512bw",    "avx512dq", "avx512vl", "avx512_bf16",
                                           "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8"};
  static_assert(std::size(kNames) == static_cast<size_t>(Feature::kCount));
  return kNames[static_cast<int>(feature)];
}

std::string Features::lack(Feature feature) const {
  const bool amx = feature >= Feature::kAmxTile;
  if (amx && amx_emulated)
    return amx_trap ? "" : "TRIMOE_AMX_EMULATED is set, but LD_PRELOAD does not name libtrimoe_amx_trap.so";
  if (!reports(feature)) return std::string("CPUID lacks ") + name_of(feature);
  const bool enabled = amx ? os_amx : feature >= Feature::kAvx512f ? os_avx512 : os_avx;
  if (!enabled) return std::string("the system does not enable ") + name_of(feature) + " (XCR0)";
  if (amx && !amx_permission) return "the system refused this process AMX tiles (arch_prctl)";
  return "";
}

const Features& features() {
  static const Features found = probe();
  return found;
}

}  // namespace trimoe::cpu
