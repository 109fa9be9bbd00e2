#include "ndp/dimm/slot.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace trimoe::ndp {

std::vector<std::byte> config_payload(const ExpertSlot& slot) {
  const ExpertShape& shape = slot.shape;
  ExpertConfig config;
  config.hidden = static_cast<uint32_t>(shape.hidden);
  config.inter = static_cast<uint32_t>(shape.inter);
  config.group = static_cast<uint16_t>(shape.weights.group);
  config.activation = static_cast<uint8_t>(shape.activation.kind);
  config.gated = shape.activation.gated;
  config.bias = shape.bias;
  config.alpha = shape.activation.alpha;
  config.limit = shape.activation.limit;
  const auto list = std::as_bytes(std::span(slot.pieces));
  std::vector<std::byte> payload(sizeof config + (slot.pieces.size() > 1 ? list.size() : 0));
  std::memcpy(payload.data(), &config, sizeof config);
  if (slot.pieces.size() > 1) std::ranges::copy(list, payload.begin() + sizeof config);
  return payload;
}

}  // namespace trimoe::ndp
