#include "assign/costs.h"

#include <algorithm>
#include <utility>

#include "assign/load.h"
#include "common/error.h"

namespace trimoe::assign {
namespace {

// Far above any batch, and small enough for a table.
constexpr int64_t kMostTokens = int64_t{1} << 24;
constexpr int kMostResources = 4096;

}  // namespace

Costs::Costs(Machine machine)
    : machine_(std::move(machine)), width_((machine_.resources + kLanes - 1) / kLanes * kLanes) {
  const auto exists = [&](int one) { return one >= 0 && one < machine_.resources; };
  check(machine_.resources > 0 && machine_.resources <= kMostResources, "1 to 4096 resources",
        machine_.resources);
  check(!machine_.dimm.empty(), "at least one DIMM", 0, "a machine with DIMM-NDP");
  check(machine_.dimm.size() == machine_.channel.size(), "a channel of each DIMM", machine_.channel.size());
  check(exists(machine_.gpu) && exists(machine_.cpu) && exists(machine_.link) &&
            std::ranges::all_of(machine_.dimm, exists) && std::ranges::all_of(machine_.channel, exists),
        "resources of the machine", "others");
  options_.assign(base_at(kFirstDimmOption, kStripedLayout), Option{.own = 0, .touched = {}});
  base_.resize(options_.size() * static_cast<size_t>(width_));
}

void Costs::set_base(int option, int layout, std::span<const float> row) {
  check(option == kCpuOption || option == kGpuOption, "the CPU (0) or the GPU (1)", option, "0");
  check(layout >= kStripedLayout && layout < places(), "striped (-1) or a DIMM", layout, "-1");
  check(std::ssize(row) == machine_.resources, "one number a resource", row.size());
  const size_t at = base_at(option, layout);
  std::ranges::copy(row, base_.begin() + static_cast<std::ptrdiff_t>(at * static_cast<size_t>(width_)));
  options_[at] = Option{.own = 0, .touched = {}};
  for (int resource = 0; resource < machine_.resources; ++resource)
    if (row[static_cast<size_t>(resource)] != 0)
      options_[at].add(resource, row[static_cast<size_t>(resource)]);
}

void Costs::set_tokens(int64_t tokens, const TokenCosts& costs) {
  check(tokens > 0 && tokens < kMostTokens, "1 to 16,777,215 tokens", tokens, "a smaller batch");
  check(costs.gpu_ns >= 0, "a time of 0 or more", costs.gpu_ns);
  const auto at = static_cast<size_t>(tokens);
  if (at >= by_tokens_.size()) {
    by_tokens_.resize(at + 1);
    knows_.resize(at + 1);
  }
  by_tokens_[at] = costs;
  knows_[at] = true;
}

}  // namespace trimoe::assign
