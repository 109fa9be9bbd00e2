// One expert FFN on one DIMM, in time: every rank streams its slice of the weights past the core.
#pragma once

#include "ndp/dram/controller.h"

namespace trimoe::ndp {

// What nobody can measure yet: parameters, with the figures that papers use.
struct CoreConfig {
  double tflops = 0.5;                        // of the whole DIMM; a multiply-add counts as two
  int64_t buffer_bytes = int64_t{256} << 10;  // activations and partial sums
  int ranks = 4;                              // package ranks whose data reaches the core apart
  double reduce_gadds = 256.0;                // additions per ns, over the ranks
};

inline constexpr int kSubChannels = 2;  // of a DIMM

struct ExpertCase {
  int64_t hidden = 0, inter = 0, tokens = 0;
  double weight_bytes_each = 2.0;  // bytes of one weight, scales included
};

struct ExpertTime {
  double command_ns;    // the descriptor's way to the core
  double broadcast_ns;  // activations over the channel
  double gate_up_ns, down_ns;
  double reduce_ns;
  double result_ns;      // results over the channel
  int64_t passes;        // times that the weights are streamed
  int64_t weight_bytes;  // one pass, all ranks
  double dram_nj;        // reading, opening rows, refreshing, all ranks; no background
  double channel_nj;     // activations and results
  double total_ns() const { return command_ns + broadcast_ns + gate_up_ns + down_ns + reduce_ns + result_ns; }
};

// Tokens that the buffer holds: each has its input, its sums of gate and up, and its partial result.
int64_t tokens_in_buffer(const CoreConfig& core, const ExpertCase& one);

// Throws Error for sizes that are not positive, or a buffer that holds no token.
ExpertTime simulate_expert(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

// The same by formula: t_cmd + broadcast + max(passes * W / B, MACs / F) + reduce + results.
double expert_closed_form_ns(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

}  // namespace trimoe::ndp
