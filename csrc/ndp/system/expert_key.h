// What a fleet calls an expert of a layer of the op: the count in the layer's handle, and the expert, of
// which a layer has at most 2^20.
#pragma once

#include <cstdint>

namespace trimoe::ndp {

inline constexpr int64_t kHandleCounts = int64_t{1} << 24, kLayerKeys = int64_t{1} << 20;
constexpr int64_t expert_key(int64_t layer, int64_t expert) {
  return layer % kHandleCounts * kLayerKeys + expert;
}

}  // namespace trimoe::ndp
