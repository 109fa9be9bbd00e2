// One layer's decision: its active experts and the row of each of their options.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "assign/costs.h"

namespace trimoe::assign {

// What is known of a layer's experts, one entry each. layout: kStripedLayout, or the DIMM that holds it.
struct LayerView {
  std::span<const int64_t> counts;
  std::span<const uint8_t> resident;
  std::span<const int16_t> layout;
};

// What may be chosen. striped_on_dimm_up_to: active experts up to which a striped one may run on a DIMM, one
// that seems good; more_dimms_up_to: up to which on any of kMostDimmOptions.
struct Choices {
  bool cpu = true;
  int striped_on_dimm_up_to = 0;
  int more_dimms_up_to = 0;
};

class Problem {
 public:
  // false where a number of tokens is not in the tables. Throws Error for entries that there cannot be.
  bool fill(const Costs& costs, const LayerView& view, const Choices& choices);

  int width() const { return width_; }
  int options() const { return options_; }  // at most kMostOptions
  std::span<const int> by_preference() const {
    return std::span(kByPreference).first(static_cast<size_t>(options_));
  }
  int size() const { return static_cast<int>(experts_.size()); }

  // The i-th expert; most tokens first, of equals the lower number.
  int expert(int i) const { return experts_[static_cast<size_t>(i)]; }
  const float* row(int i, int option) const {
    return rows_.data() + at(i, option) * static_cast<size_t>(width_);
  }
  const Option& option(int i, int option) const { return all_[at(i, option)]; }
  bool has(int i, int one) const { return option(i, one).exists(); }

 private:
  size_t at(int i, int option) const {
    return static_cast<size_t>(i) * static_cast<size_t>(options_) + static_cast<size_t>(option);
  }
  void sort_active(const LayerView& view);
  void order_dimms(const Costs& costs, const LayerView& view);
  void begin(int i, int option, const Base& base);
  void add(int i, int option, int resource, float ns);
  void add_striped(const Costs& costs, int i, int option, const TokenCosts& tokens, int dimm);
  void add_expert(const Costs& costs, const LayerView& view, const Choices& choices, int i);

  int width_ = 0;
  int options_ = kFirstDimmOption + 1;
  std::vector<int> experts_;
  std::vector<int> scratch_;
  std::vector<float> rows_;      // [active][options][width]
  std::vector<Option> all_;      // [active][options]
  std::vector<int> dimm_order_;  // by what experts that lie on them would load
  std::vector<float> dimm_load_;
};

}  // namespace trimoe::assign
