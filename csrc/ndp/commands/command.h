// What every command offers: what it will do and how long that takes, decided when it is issued; and the
// effect, when it ends.
#pragma once

#include <functional>
#include <set>
#include <span>

#include "ndp/dimm/state.h"

namespace trimoe::ndp {

// What crosses the channel besides the descriptor. The host keeps both until the command has completed.
struct Payload {
  std::span<const std::byte> in;
  std::span<std::byte> out;
};

struct Call {
  DimmState& dimm;
  const Descriptor& descriptor;
  Payload payload;
  double start_ns;

  // The ranks of the mask, in order.
  std::vector<int> ranks() const;
  // Null unless the slot holds an expert.
  const ExpertSlot* slot() const;
  // Null unless the bytes lie within the buffer of the rank.
  std::byte* buffer(int rank, uint64_t offset, int64_t bytes) const;
};

struct Outcome {
  Status status = Status::kOk;
  double ns = 0;
  // share: of the time, below 1 when the command was stopped: then nothing may be left that looks finished,
  // and what it returns does not count.
  std::function<Status(double share)> effect = [](double) { return Status::kOk; };
  // DIMMs whose link ports it takes until it ends.
  std::set<int> links = {};  // NOLINT(readability-redundant-member-init): most commands name none
};

// Ranks that a command takes, in a mode in which the core may have them. One that takes none waits for all
// before it, and all after it wait.
enum class Takes : uint8_t { kNone, kRanks, kAllRanks };

struct NdpCommand {
  const char* name;
  Outcome (*plan)(const Call& call);
  Takes takes = Takes::kNone;
  bool reads_memory = false;
  bool is_immediate = false;  // does not wait in the ring
};

// Null for an unknown opcode.
const NdpCommand* find_command(uint8_t opcode);

inline Outcome refused(Status status) { return {status, 0, {}, {}}; }

// One for each file of this folder.
Outcome plan_nop(const Call&);
Outcome plan_mode_set(const Call&);
Outcome plan_cfg_expert(const Call&);
Outcome plan_act_bcast(const Call&);
Outcome plan_gemm_gu(const Call&);
Outcome plan_silu_mul(const Call&);
Outcome plan_gemm_dn(const Call&);
Outcome plan_reduce(const Call&);
Outcome plan_expert_ffn(const Call&);
Outcome plan_res_read(const Call&);
Outcome plan_copy_rank(const Call&);
Outcome plan_link_send(const Call&);
Outcome plan_link_recv(const Call&);
Outcome plan_relayout(const Call&);
Outcome plan_migrate(const Call&);
Outcome plan_status(const Call&);
Outcome plan_irq(const Call&);

}  // namespace trimoe::ndp
