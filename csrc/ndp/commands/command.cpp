#include "ndp/commands/command.h"

namespace trimoe::ndp {
namespace {

// In the order of Opcode. ABORT and RESET act on the ring itself: dimm.cpp has them.
constexpr NdpCommand kCommandTable[] = {
    {"NOP", plan_nop},
    {"MODE_SET", plan_mode_set},
    {"CFG_EXPERT", plan_cfg_expert},
    {"ACT_BCAST", plan_act_bcast, Takes::kRanks},
    {"GEMM_GU", plan_gemm_gu, Takes::kRanks, true},
    {"SILU_MUL", plan_silu_mul, Takes::kRanks},
    {"GEMM_DN", plan_gemm_dn, Takes::kRanks, true},
    {"REDUCE", plan_reduce, Takes::kAllRanks},
    {"EXPERT_FFN", plan_expert_ffn, Takes::kAllRanks, true},
    {"RES_READ", plan_res_read, Takes::kRanks},
    {"COPY_RANK", plan_copy_rank, Takes::kRanks, true},
    {"LINK_SEND", plan_link_send, Takes::kAllRanks, true},
    {"LINK_RECV", plan_link_recv},
    {"RELAYOUT", plan_relayout, Takes::kAllRanks, true},
    {"MIGRATE", plan_migrate, Takes::kAllRanks, true},
    {"STATUS", plan_status, Takes::kNone, false, true},
    {"IRQ", plan_irq, Takes::kNone, false, true},
    {"ABORT", nullptr, Takes::kNone, false, true},
    {"RESET", nullptr, Takes::kNone, false, true},
};
static_assert(std::size(kCommandTable) == kOpcodes);

}  // namespace

const NdpCommand* find_command(uint8_t opcode) {
  return opcode < kOpcodes ? &kCommandTable[opcode] : nullptr;
}

std::vector<int> Call::ranks() const {
  std::vector<int> found;
  for (int rank = 0; rank < static_cast<int>(dimm.ranks.size()); ++rank)
    if (descriptor.has(kAllRanks) || (descriptor.rank_mask >> rank & 1)) found.push_back(rank);
  return found;
}

const ExpertSlot* Call::slot() const {
  const auto found = dimm.slots.find(descriptor.slot);
  return found == dimm.slots.end() ? nullptr : &found->second;
}

std::byte* Call::buffer(int rank, uint64_t offset, int64_t bytes) const {
  auto& buffer = dimm.ranks[static_cast<size_t>(rank)].buffer;
  if (offset > buffer.size() || static_cast<uint64_t>(bytes) > buffer.size() - offset) return nullptr;
  return buffer.data() + offset;
}

}  // namespace trimoe::ndp
