// The DIMMs of a fleet as a domain of a layer.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "ndp/system/fleet.h"
#include "runtime/domain.h"

namespace trimoe::runtime {

// Who does the arithmetic of what a DIMM runs: the host's kernels on the bytes in the DIMM, or the core as it
// is emulated, in its own order.
enum class Arithmetic : uint8_t { kHost, kCore };
inline constexpr std::string_view kArithmeticNames[] = {"host", "core"};

// Experts are placed by the fleet's owner, before or after, as expert_key() calls them. A localized one runs
// on its DIMM, a striped one on any, gathered; a split one on all.
class FleetDomain final : public Domain {
 public:
  // layer: the op's handle.
  FleetDomain(int64_t layer, std::shared_ptr<ndp::Fleet> fleet, Arithmetic arithmetic)
      : layer_(layer), fleet_(std::move(fleet)), arithmetic_(arithmetic) {}
  // Takes the layer's experts from the DIMMs.
  ~FleetDomain() override;

  // Those of its DIMMs.
  std::vector<int32_t> codes() const;
  std::unique_ptr<Ticket> submit(const Batch& batch) override;

 private:
  const int64_t layer_;
  const std::shared_ptr<ndp::Fleet> fleet_;
  const Arithmetic arithmetic_;
};

}  // namespace trimoe::runtime
