#include "cpu/dispatch/kernel_table.h"

#include <algorithm>
#include <utility>

#include "common/env.h"
#include "common/error.h"
#include "cpu/ref/kernels.h"
#if defined(__x86_64__)
#include "cpu/avx2/kernels.h"
#include "cpu/avx512/kernels.h"
#include "cpu/dispatch/amx_entry.h"
#endif
#if defined(TRIMOE_ONEDNN)
#include "cpu/onednn/kernels.h"
#endif

namespace trimoe::cpu {
namespace {

std::vector<TableEntry> build_table() {
  std::vector<TableEntry> table;
#if defined(__x86_64__)
  using F = Feature;
  const auto with = [](std::vector<Feature> base, std::initializer_list<Feature> more) {
    base.insert(base.end(), more);
    return base;
  };
  const std::vector<Feature> base = {F::kAvx512f, F::kAvx512bw, F::kAvx512dq, F::kAvx512vl};
  const std::vector<Feature> vnni = with(base, {F::kAvx512Vnni}), bf16 = with(vnni, {F::kAvx512Bf16});
  namespace v = avx512::vnni;
  namespace d = avx512::dot;
  using namespace avx512;
  table.push_back({"amx", with(bf16, {F::kAmxTile, F::kAmxBf16, F::kAmxInt8}), amx_kernels()});
  table.push_back(
      {"avx512_bf16", bf16, {&f32, &d::bf16, &v::int8, &v::int4, &d::int4_a16, &d::fp8, &d::mxfp4}});
  table.push_back({"avx512_vnni", vnni, {&f32, &avx512::bf16, &v::int8, &v::int4, &int4_a16, &fp8, &mxfp4}});
  table.push_back({"avx512", base, {&f32, &avx512::bf16, &int8, &int4, &int4_a16, &fp8, &mxfp4}});
  // VDPBF16PS does two multiply-adds: AMD issues it at the rate of an FMA, Intel (Sapphire Rapids,
  // measured) at a quarter of it, so there the FMA kernel is the faster one.
  if (features().vendor == "GenuineIntel") std::swap(table[1], table[2]);
  const KernelSet plain = {&avx2::f32,      &avx2::bf16, &avx2::int8, &avx2::int4,
                           &avx2::int4_a16, &avx2::fp8,  &avx2::mxfp4};
  KernelSet avx_vnni = plain;
  avx_vnni.int8 = &avx2::vnni::int8;
  avx_vnni.int4 = &avx2::vnni::int4;
  table.push_back({"avx2_vnni", {F::kAvx2, F::kFma, F::kAvxVnni}, avx_vnni});
  table.push_back({"avx2", {F::kAvx2, F::kFma}, plain});
#endif
#if defined(TRIMOE_ONEDNN)
  table.push_back(
      {"onednn", {Feature::kAvx2, Feature::kFma}, onednn::kernels()});  // where "avx2" comes first
#endif
  table.push_back(
      {"ref", {}, {&ref::f32, &ref::bf16, &ref::int8, &ref::int4, &ref::int4_a16, &ref::fp8, &ref::mxfp4}});
  return table;
}

}  // namespace

bool TableEntry::supported() const {
  return std::ranges::all_of(needs, [](Feature f) { return features().usable(f); });
}

std::string TableEntry::reason() const {
  for (Feature feature : needs)
    if (std::string lack = features().lack(feature); !lack.empty()) return lack;
  return "supported";
}

const Kernel& TableEntry::kernel(Format weights, bool int8_activations) const {
  switch (weights) {
    case Format::kF32:
      return *kernels.f32;
    case Format::kBf16:
      return *kernels.bf16;
    case Format::kInt8:
      return *kernels.int8;
    case Format::kInt4:
      return int8_activations ? *kernels.int4 : *kernels.int4_a16;
    case Format::kFp8:
      return *kernels.fp8;
    case Format::kMxfp4:
      return *kernels.mxfp4;
  }
  return *kernels.f32;
}

const std::vector<TableEntry>& kernel_table() {
  static const std::vector<TableEntry> table = build_table();
  return table;
}

const TableEntry& entry_named(const std::string& isa, const char* what) {
  std::vector<std::string> usable;
  for (const TableEntry& entry : kernel_table())
    if (entry.supported()) usable.emplace_back(entry.isa);
  const auto entry = std::ranges::find_if(kernel_table(), [&](const TableEntry& e) { return isa == e.isa; });
  if (entry == kernel_table().end()) throw UnknownName(what, isa, std::move(usable));
  if (!entry->supported())
    throw Error(std::string(what) + " to name an entry that this machine can run",
                isa + " (" + entry->reason() + ")", usable.front());
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
