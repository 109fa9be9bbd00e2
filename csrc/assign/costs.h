// What experts occupy, as tables that the cost model filled: no formula is repeated here.
//
// The row of an expert on a domain is a base by its layout, of which tokens are no part (reading its
// weights), plus one or two entries that depend on its tokens alone (compute; command and results on a DIMM's
// channel).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "common/domain_code.h"

namespace trimoe::assign {

// Where an expert of a layer can run: on the CPU, on the GPU, or on a DIMM: the one that holds all of it or,
// if it is striped, one of a few, each of which would gather it over the link in every pass. Numbered as the
// domains are, but that the DIMM options are not yet any DIMM in particular.
inline constexpr int kCpuOption = kCpuDomain;
inline constexpr int kGpuOption = kGpuDomain;
inline constexpr int kFirstDimmOption = kFirstDimmDomain;
inline constexpr int kMostDimmOptions = 4;
inline constexpr int kMostOptions = kFirstDimmOption + kMostDimmOptions;

// Options in the order that they are looked at in: of equals the first wins.
inline constexpr std::array<int, kMostOptions> kByPreference = {kGpuOption, kCpuOption, 2, 3, 4, 5};
// And at which place each option stands there.
inline constexpr std::array<int, kMostOptions> kPreference = [] {
  std::array<int, kMostOptions> place{};
  for (int k = 0; k < kMostOptions; ++k)
    place[static_cast<size_t>(kByPreference[static_cast<size_t>(k)])] = k;
  return place;
}();

// Nanoseconds by the tokens of an expert; the CPU's time holds its waiting for a striped or a localized one.
// A domain that the machine lacks takes for ever.
struct TokenCosts {
  float gpu_ns;
  float cpu_striped_ns;
  float cpu_localized_ns;
  float dimm_ns;  // of one that holds the expert, and of its channel
  float channel_ns;
  float striped_dimm_ns;  // of one that runs a striped expert, of its channel, the link, each other DIMM
  float striped_channel_ns;
  float link_ns;
  float other_dimm_ns;
};

// Which resources a row loads, where they are few.
struct Touched {
  static constexpr int kMost = 4;

  std::array<int16_t, kMost> at{};
  int16_t count = 0;

  bool few() const { return count <= kMost; }
  void add(int resource) {
    for (int k = 0; k < count && k < kMost; ++k)
      if (at[static_cast<size_t>(k)] == resource) return;
    if (count < kMost) at[static_cast<size_t>(count)] = static_cast<int16_t>(resource);
    if (count <= kMost) ++count;
  }
};

inline constexpr float kImpossible = 1e30F;

// What there is to know of a row beside itself.
struct Option {
  float own = kImpossible;  // the longest of it: what it takes alone
  int16_t longest = 0;      // the resource that takes so long, of equals the first
  int16_t dimm = 0;         // of an option of DIMMs: which
  Touched touched;

  bool exists() const { return own < kImpossible; }
  // An entry of the row, which is the sum of what has been added to it.
  void add(int resource, float entry) {
    touched.add(resource);
    if (entry < own || (entry == own && resource > longest)) return;
    own = entry;
    longest = static_cast<int16_t>(resource);
  }
};

// What an option occupies whatever the tokens.
struct Base {
  const float* row;
  const Option& option;
};

// The resources of a machine. dimm, channel: of each place where an expert can lie whole.
struct Machine {
  int resources;
  int gpu;
  int cpu;
  int link;
  std::vector<int> dimm;
  std::vector<int> channel;
};

class Costs {
 public:
  // Throws Error for resources that do not exist.
  explicit Costs(Machine machine);

  // Reading an expert's weights for the GPU (its fetch) or for the CPU.
  void set_base(int option, int layout, std::span<const float> row);
  void set_tokens(int64_t tokens, const TokenCosts& costs);

  bool knows(int64_t tokens) const {
    return tokens >= 0 && tokens < static_cast<int64_t>(knows_.size()) && knows_[static_cast<size_t>(tokens)];
  }
  const TokenCosts& of_tokens(int64_t tokens) const { return by_tokens_[static_cast<size_t>(tokens)]; }
  Base base(int option, int layout) const { return base(base_at(option, layout)); }
  Base nothing() const { return base(0); }

  const Machine& machine() const { return machine_; }
  int places() const { return static_cast<int>(machine_.dimm.size()); }
  int width() const { return width_; }

 private:
  size_t base_at(int option, int layout) const {
    return 1 + static_cast<size_t>(option) * (machine_.dimm.size() + 1) +
           static_cast<size_t>(layout - kStripedLayout);
  }
  Base base(size_t at) const { return {base_.data() + at * static_cast<size_t>(width_), options_[at]}; }

  Machine machine_;
  int width_;
  std::vector<float> base_;  // [1 + 2 * (places + 1)][width]: nothing, the CPU's by layout, the GPU's
  std::vector<Option> options_;
  std::vector<TokenCosts> by_tokens_;
  std::vector<bool> knows_;  // which of them
};

}  // namespace trimoe::assign
