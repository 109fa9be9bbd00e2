#include "plan/problem.h"

#include <algorithm>
#include <array>

#include "common/error.h"

namespace trimoe::plan {
namespace {

constexpr int kDigit = 8;
constexpr int kBuckets = 1 << kDigit;

int bucket(int64_t tokens, int shift) { return kBuckets - 1 - static_cast<int>(tokens >> shift) % kBuckets; }

}  // namespace

// By digits, the lowest first: a comparing sort is half of the time that a whole decision has.
void Problem::sort_active(const LayerView& view) {
  experts_.clear();
  int64_t most = 0;
  for (int one = 0; one < std::ssize(view.counts); ++one) {
    const int64_t tokens = view.counts[static_cast<size_t>(one)];
    if (tokens > 0) experts_.push_back(one);
    most = std::max(most, tokens);
  }
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

void Problem::write(int i, int option, const Base& base) {
  std::copy_n(base.row, width_, rows_.data() + at(i, option) * static_cast<size_t>(width_));
  own_[at(i, option)] = base.peak;
  touched_[at(i, option)] = base.touched;
}

void Problem::add(int i, int option, int resource, float ns) {
  float& entry = rows_[at(i, option) * static_cast<size_t>(width_) + static_cast<size_t>(resource)];
  entry += ns;
  own_[at(i, option)] = std::max(own_[at(i, option)], entry);
  touched_[at(i, option)].add(resource);
}

bool Problem::fill(const Costs& costs, const LayerView& view, bool cpu) {
  check(view.counts.size() == view.resident.size() && view.counts.size() == view.layout.size(),
        "counts, residency and layout of the same experts", view.counts.size(), "arrays [E]");
  const Machine& machine = costs.machine();
  width_ = costs.width();
  sort_active(view);
  rows_.resize(experts_.size() * kOptions * static_cast<size_t>(width_));
  own_.resize(experts_.size() * kOptions);
  touched_.resize(own_.size());
  for (int i = 0; i < size(); ++i) {
    const auto one = static_cast<size_t>(expert(i));
    const int layout = view.layout[one];
    check(layout >= -1 && layout < costs.places(), "an expert striped (-1) or on a DIMM", layout, "-1");
    if (!costs.knows(view.counts[one])) return false;
    const TokenCosts& tokens = costs.of_tokens(view.counts[one]);
    write(i, kGpu, view.resident[one] ? costs.nothing() : costs.base(kGpu, layout));
    add(i, kGpu, machine.gpu, tokens.gpu);
    if (cpu) {
      write(i, kCpu, costs.base(kCpu, layout));
      add(i, kCpu, machine.cpu, layout < 0 ? tokens.cpu_striped : tokens.cpu_localized);
    } else {
      own_[at(i, kCpu)] = kImpossible;
    }
    if (layout >= 0) {
      write(i, kHome, costs.nothing());
      add(i, kHome, machine.dimm[static_cast<size_t>(layout)], tokens.dimm);
      add(i, kHome, machine.channel[static_cast<size_t>(layout)], tokens.channel);
    } else {
      own_[at(i, kHome)] = kImpossible;
    }
  }
  return true;
}

}  // namespace trimoe::plan
