// What a DIMM consists of; the commands change it, dimm.h moves it through time.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <vector>

#include "ndp/dimm/descriptor.h"
#include "ndp/dimm/memory.h"
#include "ndp/dimm/slot.h"
#include "ndp/dimm/status.h"
#include "ndp/sharing/mode.h"
#include "ndp/timing/expert.h"

namespace trimoe::ndp {

struct DimmConfig {
  const DramSpec* spec = nullptr;
  CoreConfig core;
  int ring = 64;                 // descriptors
  int slots = 65536;             // experts
  double timeout_ns = 1e6;       // after which the host gives a command up
  double silu_per_ns = 256.0;    // elements, over the ranks
  Mode mode = Mode::kExclusive;  // of the ranks while experts run
  double stream_share = 1.0;     // of the undisturbed rate, that the host leaves in that mode

  // Two sub-channels; the last row of the first bank holds the ring.
  int64_t capacity_bytes() const {
    const DramGeometry& geometry = spec->geometry;
    return int64_t{geometry.banks()} * geometry.rows * geometry.row_bytes() * kSubChannels * core.ranks -
           geometry.row_bytes();
  }
};

struct Rank {
  explicit Rank(const DimmConfig& config)
      : refresh(config.spec->timing), buffer(static_cast<size_t>(config.core.buffer_bytes)) {}
  Mode mode = Mode::kHost;
  double free_ns = 0;  // end of its last command
  RefreshLedger refresh;
  std::vector<std::byte> buffer;  // of its part of the core
};

// The refreshes that fell due up to a clock, issued on time by whoever owns the rank.
inline void catch_up(RefreshLedger& ledger, int64_t clock) {
  while (ledger.next_due() <= clock) ledger.issue(ledger.owner(), ledger.next_due());
}

// Where another DIMM may write, once.
struct Window {
  uint64_t address = 0;
  int64_t bytes = 0;
};

struct DimmCounters {
  std::array<int64_t, kOpcodes> completed{};
  int64_t failed = 0;
  int64_t dram_read_bytes = 0, dram_written_bytes = 0, channel_bytes = 0, link_bytes = 0;
  double busy_ns = 0;  // with a command of any rank in work, of those that have ended
  double dram_nj = 0, channel_nj = 0, link_nj = 0;
};

// What STATUS answers.
struct StatusReport {
  uint32_t modes = 0;  // two bits for each rank
  uint32_t experts = 0;
  uint64_t completed = 0, failed = 0;
  uint64_t refreshes = 0;  // by the NDP side, all ranks
  double busy_ns = 0;
  uint8_t reserved[24] = {};
};
static_assert(sizeof(StatusReport) == 64);

struct DimmState;

// The other DIMMs, as the link reaches them; null for an unknown number.
class Peers {
 public:
  virtual ~Peers() = default;
  virtual DimmState* peer(int dimm) = 0;
};

struct DimmState {
  DimmState(int number, const DimmConfig& configuration, Peers* others)
      : id(number), config(configuration), peers(others), memory(configuration.capacity_bytes()) {
    for (int rank = 0; rank < config.core.ranks; ++rank) ranks.emplace_back(config);
  }

  // From then on it does not answer: for ever, or until RESET.
  double silent_ns() const { return std::min(dies_at_ns, hangs_at_ns); }
  bool answers(double at_ns) const { return at_ns < silent_ns(); }
  // Whether the core may use all ranks.
  bool has_all_ranks() const {
    return std::none_of(ranks.begin(), ranks.end(), [](const Rank& one) { return one.mode == Mode::kHost; });
  }

  const int id;
  const DimmConfig config;
  Peers* const peers;
  Memory memory;
  std::map<uint32_t, ExpertSlot> slots;
  std::vector<Rank> ranks;
  std::vector<Window> windows;
  DimmCounters counters;
  double link_free_ns = 0;  // of its link port
  bool computes = true;     // false: time alone, results are somebody else's
  double dies_at_ns = std::numeric_limits<double>::infinity(), hangs_at_ns = dies_at_ns;
  bool irq_masked = false, irq_pending = false;
};

}  // namespace trimoe::ndp
