#include "cpu/kernel_table.h"

#include <algorithm>

#include "common/env.h"
#include "common/error.h"
#include "cpu/ref/kernels.h"
#if defined(__x86_64__)
#include "amx/gemm_bf16.h"
#include "cpu/avx2/kernels.h"
#include "cpu/avx512/kernels.h"
#endif

namespace trimoe::cpu {
namespace {

#if defined(__x86_64__)
// AMX multiplies 16 rows in the time of one; below this many rows per expert memory is the limit, and
// dot products are no slower.
constexpr int kAmxFromRows = 5;

Kernel amx_kernel() {
  Kernel kernel = avx512::bf16_dot;  // everything but the gemm, on the same bf16 rows
  kernel.max_rows = amx::kRows;
  kernel.gemm = [](const GemmArgs& args) {
    args.rows < kAmxFromRows ? avx512::bf16_dot.gemm(args) : amx::gemm_bf16(args);
  };
  return kernel;
}
#endif

std::vector<TableEntry> build_table() {
  std::vector<TableEntry> table;
#if defined(__x86_64__)
  const std::vector<Feature> avx512 = {Feature::kAvx512f, Feature::kAvx512bw, Feature::kAvx512dq,
                                       Feature::kAvx512vl};
  std::vector<Feature> avx512_bf16 = avx512;
  avx512_bf16.push_back(Feature::kAvx512Bf16);
  std::vector<Feature> amx = avx512_bf16;
  amx.insert(amx.end(), {Feature::kAmxTile, Feature::kAmxBf16});
  static const Kernel amx_bf16 = amx_kernel();
  table.push_back({"amx", amx, &avx512::f32, &amx_bf16});
  table.push_back({"avx512_bf16", avx512_bf16, &avx512::f32, &avx512::bf16_dot});
  table.push_back({"avx512", avx512, &avx512::f32, &avx512::bf16_fma});
  // VDPBF16PS does two multiply-adds: AMD issues it at the rate of an FMA, Intel (Sapphire Rapids,
  // measured) at a quarter of it, so there the FMA kernel is the faster one.
  if (features().vendor == "GenuineIntel") std::swap(table[1], table[2]);
  table.push_back({"avx2", {Feature::kAvx2, Feature::kFma}, &avx2::f32, &avx2::bf16});
#endif
  table.push_back({"ref", {}, &ref::f32, &ref::bf16});
  return table;
}

}  // namespace

bool TableEntry::supported() const {
  return std::ranges::all_of(needs, [](Feature f) { return features().usable(f); });
}

std::string TableEntry::reason() const {
  for (Feature feature : needs) {
    if (!features().reports(feature)) return std::string("CPUID lacks ") + name_of(feature);
    if (features().usable(feature)) continue;
    if (feature >= Feature::kAmxTile && features().os_amx)
      return "the system refused this process AMX tiles (arch_prctl)";
    return std::string("the system does not enable ") + name_of(feature) + " (XCR0)";
  }
  return "supported";
}

const Kernel& TableEntry::kernel(DType weights) const { return weights == DType::kF32 ? *f32 : *bf16; }

const std::vector<TableEntry>& kernel_table() {
  static const std::vector<TableEntry> table = build_table();
  return table;
}

const TableEntry& entry_named(const std::string& isa, const char* what) {
  std::string names;
  for (const TableEntry& entry : kernel_table())
    if (entry.supported()) names += (names.empty() ? "" : ", ") + std::string(entry.isa);
  const auto entry = std::ranges::find_if(kernel_table(), [&](const TableEntry& e) { return isa == e.isa; });
  if (entry == kernel_table().end())
    throw Error(std::string(what) + " to name an entry of the kernel table", isa, names);
  if (!entry->supported())
    throw Error(std::string(what) + " to name an entry that this machine can run",
                isa + " (" + entry->reason() + ")", names);
  return *entry;
}

const TableEntry& selected_entry() {
  static const TableEntry& selected = []() -> const TableEntry& {
    const std::string wanted = env::cpu_isa();
    if (!wanted.empty()) return entry_named(wanted, "TRIMOE_CPU_ISA");
    return *std::ranges::find_if(kernel_table(), &TableEntry::supported);  // "ref" always is
  }();
  return selected;
}

}  // namespace trimoe::cpu
