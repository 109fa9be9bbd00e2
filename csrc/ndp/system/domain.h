// Which fleet runs the experts of which layer of the op: its domains 2 and up.
#pragma once

#include <memory>

#include "ndp/system/fleet.h"

namespace trimoe::ndp {

// Names an expert of a layer to the fleet: the count in its handle (cpu/layer.h) and the expert, of which a
// layer has at most 2^20.
inline constexpr int64_t kHandleCounts = int64_t{1} << 24, kLayerKeys = int64_t{1} << 20;
constexpr int64_t expert_key(int64_t layer, int64_t expert) {
  return layer % kHandleCounts * kLayerKeys + expert;
}

// Who does the arithmetic of what a DIMM runs: the host's kernels on the bytes in the DIMM, or the core as it
// is emulated, in its own order.
enum class Arithmetic : uint8_t { kHost, kCore };
inline constexpr std::string_view kArithmeticNames[] = {"host", "core"};

struct Domain {
  std::shared_ptr<Fleet> fleet;
  Arithmetic arithmetic = Arithmetic::kHost;
};

// The process-wide table; `layer` is the op's handle. A layer has one fleet; detach() takes its experts from
// it.
void attach(int64_t layer, Domain domain);
void detach(int64_t layer);

// Without a fleet where the layer has none.
Domain domain_of(int64_t layer);

}  // namespace trimoe::ndp
