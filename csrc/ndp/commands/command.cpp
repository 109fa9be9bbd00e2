#include "ndp/commands/command.h"

namespace trimoe::ndp {
namespace {

// In the order of Opcode. ABORT and RESET act on the ring itself: dimm.cpp has them.
constexpr NdpCommand kCommandTable[] = {
    {"NOP", plan_nop, false, false},
    {"MODE_SET", plan_mode_set, false, false},
    {"CFG_EXPERT", plan_cfg_expert, false, false},
    {"ACT_BCAST", plan_act_bcast, true, false},
    {"GEMM_GU", plan_gemm_gu, true, false},
    {"SILU_MUL", plan_silu_mul, true, false},
    {"GEMM_DN", plan_gemm_dn, true, false},
    {"REDUCE", plan_reduce, true, false},
    {"EXPERT_FFN", plan_expert_ffn, true, false},
    {"RES_READ", plan_res_read, true, false},
    {"COPY_RANK", plan_copy_rank, true, false},
    {"LINK_SEND", plan_link_send, true, false},
    {"LINK_RECV", plan_link_recv, false, false},
    {"RELAYOUT", plan_relayout, true, false},
    {"MIGRATE", plan_migrate, true, false},
    {"STATUS", plan_status, false, true},
    {"IRQ", plan_irq, false, true},
    {"ABORT", nullptr, false, true},
    {"RESET", nullptr, false, true},
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
