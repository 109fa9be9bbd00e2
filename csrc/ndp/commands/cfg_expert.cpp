// CFG_EXPERT: says what lies at an address, or in pieces on many DIMMs, and gives it a slot.
//   slot, weight_addr, dtype bits; payload: ExpertConfig, then the Pieces of a striped expert in order; its
//   CRC in stride.
#include <cstring>

#include "common/error.h"
#include "ndp/commands/command.h"
#include "ndp/dimm/rates.h"
#include "ndp/dimm/transfer.h"

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
  if (config.activation > static_cast<uint8_t>(Activation::kSwigluOai)) return false;
  try {
    validate(slot.shape, slot.number);
  } catch (const Error&) {
    return false;
  }
  return true;
}

// Where it lies: OK, or why that cannot be.
Status read_pieces(const Call& call, ExpertSlot& slot) {
  const auto list = call.payload.in.subspan(sizeof(ExpertConfig));
  const int64_t bytes = slot.shape.expert_bytes();
  slot.pieces = {{remote(call.dimm.id, call.descriptor.weight_addr), bytes}};
  if (list.empty()) return check_pieces(*call.dimm.peers, slot.pieces, false);
  slot.pieces.resize(list.size() / sizeof(Piece));
  std::memcpy(slot.pieces.data(), list.data(), list.size());
  const Status status = check_pieces(*call.dimm.peers, slot.pieces, false);
  return status == Status::kOk && bytes_of(slot.pieces) != bytes ? Status::kBadField : status;
}

}  // namespace

Outcome plan_cfg_expert(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  if (d.slot >= static_cast<uint32_t>(dimm.config.slots)) return refused(Status::kBadSlot);
  const auto& payload = call.payload.in;
  if (payload.size() < sizeof(ExpertConfig) || (payload.size() - sizeof(ExpertConfig)) % sizeof(Piece) != 0)
    return refused(Status::kBadField);
  if (crc32c(payload.data(), payload.size()) != d.stride) return refused(Status::kBadCrc);
  ExpertSlot slot;
  if (!read_config(call, slot)) return refused(Status::kBadField);
  if (d.weight_addr != local_of(d.weight_addr)) return refused(Status::kBadAddress);
  if (const Status status = read_pieces(call, slot); status != Status::kOk) return refused(status);
  const auto bytes = static_cast<int64_t>(payload.size());
  const double ns = channel_ns(*dimm.config.spec, static_cast<double>(bytes));
  return {Status::kOk, ns, [&dimm, number = d.slot, slot, bytes](double share) {
            count_channel(dimm, bytes);
            if (share < 1) return Status::kOk;
            dimm.slots[number] = slot;
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
