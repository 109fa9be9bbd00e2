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

namespace trimoe::assign {

// Where an expert of a layer can run: on the GPU, on the CPU, or on a DIMM: the one that holds all of it or,
// if it is striped, any, which then gathers it over the link in every pass. Rows of a table, not domains
// (common/domain_code.h): the option that wins of equals is the first.
inline constexpr int kGpuOption = 0;
inline constexpr int kCpuOption = 1;
inline constexpr int kFirstDimmOption = 2;

// Nanoseconds by the tokens of an expert; the CPU's time holds its waiting for a striped or a localized one.
struct TokenCosts {
  float gpu = -1;  // below 0: not known yet
  float cpu_striped = 0;
  float cpu_localized = 0;
  float dimm = 0;  // of one that holds the expert, and of its channel
  float channel = 0;
  float striped_dimm = 0;  // of one that runs a striped expert, of its channel, the link, and each other DIMM
  float striped_channel = 0;
  float link = 0;
  float other_dimm = 0;
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
  int16_t dimm = -1;        // where a DIMM runs it
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

  // Reading an expert's weights for the GPU (its fetch) or for the CPU; layout -1 is striped.
  void set_base(int option, int layout, std::span<const float> row);
  void set_tokens(int64_t tokens, const TokenCosts& costs);

  bool knows(int64_t tokens) const {
    return tokens >= 0 && tokens < static_cast<int64_t>(by_tokens_.size()) &&
           by_tokens_[static_cast<size_t>(tokens)].gpu >= 0;
  }
  const TokenCosts& of_tokens(int64_t tokens) const { return by_tokens_[static_cast<size_t>(tokens)]; }
  Base base(int option, int layout) const { return base(base_at(option, layout)); }
  Base nothing() const { return base(0); }

  const Machine& machine() const { return machine_; }
  int places() const { return static_cast<int>(machine_.dimm.size()); }
  int width() const { return width_; }

 private:
  size_t base_at(int option, int layout) const {
    return 1 + static_cast<size_t>(option) * (machine_.dimm.size() + 1) + static_cast<size_t>(layout + 1);
  }
  Base base(size_t at) const { return {base_.data() + at * static_cast<size_t>(width_), options_[at]}; }

  Machine machine_;
  int width_;
  std::vector<float> base_;  // [1 + 2 * (places + 1)][width]: nothing, the GPU's by layout, the CPU's
  std::vector<Option> options_;
  std::vector<TokenCosts> by_tokens_;
};

}  // namespace trimoe::assign
