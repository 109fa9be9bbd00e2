#include "runtime/divide.h"

#include <string>

#include "common/error.h"

namespace trimoe::runtime {
namespace {

void check_codes(const Wiring& wiring, std::span<const int32_t> plan) {
  for (size_t expert = 0; expert < plan.size(); ++expert) {
    const int32_t code = plan[expert];
    if (code == kCpuDomain || code == kIdleDomain || wiring.find(code) >= 0) continue;
    throw Error("a plan that uses domains this layer has: " + wiring.codes(),
                std::to_string(code) + " for expert " + std::to_string(expert),
                "those, attaching the domain first, or plan=None");
  }
}

}  // namespace

void Division::assign(const OpenLayer& layer, const cpu::Routing& routing, std::span<const int32_t> plan) {
  static const Wiring none;
  const Wiring& wiring = layer.wiring ? *layer.wiring : none;
  domains.resize(wiring.domains.size());
  for (auto& shares : domains) shares.clear();
  if (plan.empty()) {
    cpu::all_on_host(*layer.packed, routing, host);
    return;
  }
  check_codes(wiring, plan);
  host.clear();
  for (const cpu::Routing::Expert& one : routing.active) {
    const int32_t code = plan[static_cast<size_t>(one.index)];
    if (code == kCpuDomain) {
      host.push_back({one, layer.packed->expert(one.index)});
      continue;
    }
    check(
        code != kIdleDomain, "a plan with a domain for every expert that has rows",
        [&] { return "-1 (idle) for expert " + std::to_string(one.index); }, "0, the CPU");
    domains[static_cast<size_t>(wiring.find(code))].push_back({one, code});
  }
}

}  // namespace trimoe::runtime
