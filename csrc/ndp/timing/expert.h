// One expert FFN on one DIMM, in time: every rank streams its slice of the weights past the core.
#pragma once

#include "ndp/dram/spec.h"

namespace trimoe::ndp {

// Unknown until such hardware exists: parameters, with the figures that papers use.
struct CoreConfig {
  double tflops = 0.5;                        // of the whole DIMM; a multiply-add counts as two
  int64_t buffer_bytes = int64_t{256} << 10;  // activations and partial sums
  int ranks = 4;                              // package ranks whose data reaches the core apart
  double reduce_gadds = 256.0;                // additions per ns, over the ranks
  double link_gbps = 25.0;                    // from other DIMMs into this one

  auto operator<=>(const CoreConfig&) const = default;
};

inline constexpr int kSubChannels = 2;  // of a DIMM

struct ExpertCase {
  int64_t hidden = 0, inter = 0, tokens = 0;
  double weight_bytes_each = 2.0;  // bytes of one weight, scales included
  int striped_over = 1;            // DIMMs that own an equal part of every matrix each; 1: all on this one
  double stream_share = 1.0;       // of the undisturbed rate, that the host leaves to the core

  auto operator<=>(const ExpertCase&) const = default;
};

struct ExpertTime {
  double command_ns;    // the descriptor's way to the core
  double broadcast_ns;  // activations over the channel
  double gate_up_ns, down_ns;
  double gather_ns;  // waiting for the link beyond that: for its first bytes, and where it is slower
  double reduce_ns;
  double result_ns;      // results over the channel
  int64_t passes;        // times that the weights are streamed
  int64_t weight_bytes;  // one pass, all ranks of this DIMM
  int64_t link_bytes;    // one pass, from the other DIMMs
  double dram_nj;        // reading, opening rows, refreshing, all ranks and DIMMs; no background
  double channel_nj;     // activations and results
  double link_nj;
  double total_ns() const {
    return command_ns + broadcast_ns + gate_up_ns + down_ns + gather_ns + reduce_ns + result_ns;
  }
};

// Tokens that the buffer holds: each has its input, its sums of gate and up, and its partial result.
int64_t tokens_in_buffer(const CoreConfig& core, const ExpertCase& one);

// Sums of the ranks' partial results.
double reduce_ns(const CoreConfig& core, const ExpertCase& one);

// Throws Error for ranks, a rate or a link that cannot be.
void check_core(const CoreConfig& core);

// Throws Error for sizes that are not positive, weights that do not fit the DIMM, or a buffer that holds no
// token.
void check_case(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

// Throws what check_case throws.
ExpertTime simulate_expert(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

// The same; remembers up to 65,536 of them, for every thread.
ExpertTime expert_time(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

}  // namespace trimoe::ndp
