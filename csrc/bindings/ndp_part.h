// What emulated DIMMs do of a call of the op.
#pragma once

#include <span>
#include <vector>

#include "cpu/expert_ffn.h"

namespace trimoe {

// Runs the experts of domain 2 + d on DIMM d, and tells the host's kernels what is left for them: where the
// arithmetic is theirs, all of it, on the bytes in the DIMMs; where it is the cores', the other experts.
class NdpPart {
 public:
  // domains: of each expert, or empty: none is on a DIMM. `args` is changed, and needs this object as long as
  // it is used. Throws Error for a domain that the layer does not have, or an expert that lies elsewhere;
  // DimmError where a DIMM fails.
  NdpPart(int64_t handle, const cpu::Layer& layer, std::span<const int32_t> domains, const ThreadPool& pool,
          cpu::FfnArgs& args);

 private:
  std::vector<const std::byte*> experts_;
  std::vector<float> sums_;   // [tokens, H]
  std::vector<int32_t> ids_;  // [tokens, K], -1 for what is no expert, or was run by a core
};

}  // namespace trimoe
