#include "assign/problem.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "common/error.h"

namespace trimoe::assign {
namespace {

constexpr int kDigit = 8;
constexpr int kBuckets = 1 << kDigit;

int bucket(int64_t tokens, int shift) { return kBuckets - 1 - static_cast<int>(tokens >> shift) % kBuckets; }

}  // namespace

// By digits, the lowest first: a comparing sort is half of the time that a whole decision has.
void Problem::sort_active(const LayerView& view) {
  int64_t most = 0;
  for (const int one : experts_) most = std::max(most, view.counts[static_cast<size_t>(one)]);
  scratch_.resize(experts_.size());
  for (int shift = 0; most >> shift; shift += kDigit) {
    std::array<int, kBuckets + 1> begin{};
    const auto bucket_of = [&](int one) {
      return static_cast<size_t>(bucket(view.counts[static_cast<size_t>(one)], shift));
    };
    for (const int one : experts_) ++begin[bucket_of(one) + 1];
    for (size_t k = 0; k < kBuckets; ++k) begin[k + 1] += begin[k];
    for (const int one : experts_) scratch_[static_cast<size_t>(begin[bucket_of(one)]++)] = one;
    experts_.swap(scratch_);
  }
}

// Few striped experts ever run on a DIMM, for the link bears only few: they are the coldest ones, and get the
// emptiest DIMMs.
void Problem::order_dimms(const Costs& costs, const LayerView& view) {
  dimm_load_.assign(static_cast<size_t>(costs.places()), 0.0F);
  for (const int one : experts_) {
    const auto at = static_cast<size_t>(one);
    if (view.layout[at] != kStripedLayout && !view.resident[at])
      dimm_load_[static_cast<size_t>(view.layout[at])] += costs.of_tokens(view.counts[at]).dimm_ns;
  }
  dimm_order_.resize(dimm_load_.size());
  std::iota(dimm_order_.begin(), dimm_order_.end(), 0);
  std::ranges::stable_sort(dimm_order_, {}, [&](int dimm) { return dimm_load_[static_cast<size_t>(dimm)]; });
}

void Problem::begin(int i, int option, const Base& base) {
  std::copy_n(base.row, width_, rows_.data() + at(i, option) * static_cast<size_t>(width_));
  all_[at(i, option)] = base.option;
}

void Problem::add(int i, int option, int resource, float ns) {
  float& entry = rows_[at(i, option) * static_cast<size_t>(width_) + static_cast<size_t>(resource)];
  entry += ns;
  all_[at(i, option)].add(resource, entry);
}

void Problem::add_striped(const Costs& costs, int i, int option, const TokenCosts& tokens, int dimm) {
  const Machine& machine = costs.machine();
  begin(i, option, costs.nothing());
  all_[at(i, option)].dimm = static_cast<int16_t>(dimm);
  for (int one = 0; one < costs.places(); ++one)
    add(i, option, machine.dimm[static_cast<size_t>(one)],
        one == dimm ? tokens.striped_dimm_ns : tokens.other_dimm_ns);
  add(i, option, machine.channel[static_cast<size_t>(dimm)], tokens.striped_channel_ns);
  add(i, option, machine.link, tokens.link_ns);
}

void Problem::add_expert(const Costs& costs, const LayerView& view, const Choices& choices, int i) {
  const Machine& machine = costs.machine();
  const auto one = static_cast<size_t>(expert(i));
  const int layout = view.layout[one];
  const TokenCosts& tokens = costs.of_tokens(view.counts[one]);
  begin(i, kGpuOption, view.resident[one] ? costs.nothing() : costs.base(kGpuOption, layout));
  add(i, kGpuOption, machine.gpu, tokens.gpu_ns);
  if (choices.cpu) {
    begin(i, kCpuOption, costs.base(kCpuOption, layout));
    add(i, kCpuOption, machine.cpu,
        layout == kStripedLayout ? tokens.cpu_striped_ns : tokens.cpu_localized_ns);
  }
  if (layout != kStripedLayout) {
    begin(i, kFirstDimmOption, costs.nothing());
    all_[at(i, kFirstDimmOption)].dimm = view.layout[one];
    add(i, kFirstDimmOption, machine.dimm[static_cast<size_t>(layout)], tokens.dimm_ns);
    add(i, kFirstDimmOption, machine.channel[static_cast<size_t>(layout)], tokens.channel_ns);
  } else if (size() <= choices.striped_on_dimm_up_to) {
    const int last = size() - 1;
    for (int option = kFirstDimmOption; option < options_; ++option)
      add_striped(costs, i, option, tokens,
                  dimm_order_[static_cast<size_t>((last - i + option - kFirstDimmOption) % costs.places())]);
  }
}

bool Problem::fill(const Costs& costs, const LayerView& view, const Choices& choices) {
  check(view.counts.size() == view.resident.size() && view.counts.size() == view.layout.size(),
        "counts, residency and layout of the same experts", view.counts.size());
  experts_.clear();
  for (size_t at = 0; at < view.counts.size(); ++at) {
    if (view.counts[at] <= 0) continue;
    check(view.layout[at] >= kStripedLayout && view.layout[at] < costs.places(),
          "an expert striped (-1) or on a DIMM", view.layout[at], "-1");
    if (!costs.knows(view.counts[at])) return false;
    experts_.push_back(static_cast<int>(at));
  }
  sort_active(view);
  width_ = costs.width();
  const int most_dimms = size() <= choices.more_dimms_up_to ? kMostDimmOptions : 1;
  options_ = kFirstDimmOption + std::clamp(costs.places(), 1, most_dimms);
  const size_t n = experts_.size() * static_cast<size_t>(options_);
  rows_.resize(n * static_cast<size_t>(width_));
  all_.assign(n, Option{});
  if (size() <= choices.striped_on_dimm_up_to) order_dimms(costs, view);
  for (int i = 0; i < size(); ++i) add_expert(costs, view, choices, i);
  return true;
}

}  // namespace trimoe::assign
