// CFG_EXPERT: says what lies at an address and gives it a slot.
//   slot, weight_addr, dtype bits; payload: ExpertConfig, its CRC in stride.
#include <cstring>

#include "ndp/commands/command.h"
#include "ndp/dimm/rates.h"

namespace trimoe::ndp {
namespace {

bool read_config(const Call& call, ExpertSlot& slot) {
  ExpertConfig config;
  std::memcpy(&config, call.payload.in.data(), sizeof config);
  slot.number = static_cast<Number>(call.descriptor.flags >> kNumberShift & 3);
  const WeightFormat weights(packed_format(slot.number), config.group);
  slot.shape = {config.hidden,
                config.inter,
                weights,
                {static_cast<Activation>(config.activation), config.gated != 0, config.alpha, config.limit},
                config.bias != 0};
  const bool is_group =
      weights.format != Format::kInt4 || weights.group == 32 || weights.group == 64 || weights.group == 128;
  return config.hidden > 0 && config.hidden <= 1 << 20 && config.inter > 0 && config.inter <= 1 << 20 &&
         is_group && config.activation <= static_cast<uint8_t>(Activation::kSwigluOai);
}

}  // namespace

Outcome plan_cfg_expert(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  if (d.slot >= static_cast<uint32_t>(dimm.config.slots)) return refused(Status::kBadSlot);
  if (call.payload.in.size() != sizeof(ExpertConfig)) return refused(Status::kBadField);
  if (crc32c(call.payload.in.data(), sizeof(ExpertConfig)) != d.stride) return refused(Status::kBadCrc);
  ExpertSlot slot;
  if (!read_config(call, slot)) return refused(Status::kBadField);
  const int64_t bytes = slot.shape.expert_bytes();
  if (!dimm.memory.read(d.weight_addr, bytes)) return refused(Status::kBadAddress);
  slot.pieces = {{remote(dimm.id, d.weight_addr), bytes}};
  const double ns = channel_ns(*dimm.config.spec, sizeof(ExpertConfig));
  return {Status::kOk, ns, [&dimm, number = d.slot, slot](double share) {
            if (share < 1) return Status::kAborted;
            dimm.slots[number] = slot;
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
