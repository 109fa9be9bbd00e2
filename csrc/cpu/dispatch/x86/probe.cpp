#include "cpu/dispatch/x86/probe.h"

#include <cstring>

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/env.h"

// Null unless the trap (csrc/emulation) is preloaded or linked; the core does not depend on it.
extern "C" [[gnu::weak]] int trimoe_amx_trap_installed();

namespace trimoe::cpu::x86 {
namespace {

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // zeros where the leaf is missing
  return r;
}

uint64_t read_xcr0() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Linux keeps the 8 KiB of tile data off until a process asks. The permission is the process's, threads
// included, those that run already too; it is never taken back.
bool request_amx() {
  constexpr long kRequestPermission = 0x1023, kGetPermission = 0x1022, kTileData = 18;
  const auto granted = [&] {
    unsigned long states = 0;
    return syscall(SYS_arch_prctl, kGetPermission, &states) == 0 && ((states >> kTileData) & 1u);
  };
  return granted() || (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 && granted());
}

std::string vendor_string() {
  const Registers r = cpuid(0);
  char text[13] = {};
  std::memcpy(text, &r.ebx, 4);
  std::memcpy(text + 4, &r.edx, 4);
  std::memcpy(text + 8, &r.ecx, 4);
  return text;
}

std::string brand_string() {
  char text[49] = {};
  for (uint32_t leaf = 0; leaf < 3; ++leaf) {
    const Registers r = cpuid(0x80000002u + leaf);
    std::memcpy(text + 16 * leaf, &r, 16);
  }
  return text;
}

}  // namespace

void probe(Features& found) {
  found.vendor = vendor_string();
  found.brand = brand_string();
  const Registers leaf1 = cpuid(1), leaf7 = cpuid(7), leaf7_1 = cpuid(7, 1);
  const struct {
    Feature feature;
    uint32_t word;
    int bit;
  } kBits[] = {
      {Feature::kAvx2, leaf7.ebx, 5},        {Feature::kFma, leaf1.ecx, 12},
      {Feature::kAvxVnni, leaf7_1.eax, 4},   {Feature::kAvx512f, leaf7.ebx, 16},
      {Feature::kAvx512bw, leaf7.ebx, 30},   {Feature::kAvx512dq, leaf7.ebx, 17},
      {Feature::kAvx512vl, leaf7.ebx, 31},   {Feature::kAvx512Bf16, leaf7_1.eax, 5},
      {Feature::kAvx512Vnni, leaf7.ecx, 11}, {Feature::kAmxTile, leaf7.edx, 24},
      {Feature::kAmxBf16, leaf7.edx, 22},    {Feature::kAmxInt8, leaf7.edx, 25},
  };
  for (const auto& [feature, word, bit] : kBits)
    found.cpuid |= ((word >> bit) & 1u) << static_cast<int>(feature);

  const bool osxsave = (leaf1.ecx >> 27) & 1u;
  if (osxsave) found.xcr0 = read_xcr0();
  const auto saves = [&](uint64_t states) { return (found.xcr0 & states) == states; };
  found.os_avx = saves(0x6);      // SSE, AVX
  found.os_avx512 = saves(0xe6);  // and opmask, ZMM high halves, ZMM 16-31
  found.os_amx = saves(0x60000);  // tile configuration, tile data
  found.amx_emulated = env::amx_emulated();
  if (found.amx_emulated)
    found.amx_trap = trimoe_amx_trap_installed != nullptr && trimoe_amx_trap_installed() != 0;
  else if (found.os_amx && found.reports(Feature::kAmxTile))
    found.amx_permission = request_amx();
}

}  // namespace trimoe::cpu::x86
