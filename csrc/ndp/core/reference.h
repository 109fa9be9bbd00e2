// A second opinion on the core's arithmetic: the FFN in double, weight by weight, and how far fp32 may be
// off.
//
// Shares nothing with the core but the packed layout. Slow; it is there to be compared with.
#pragma once

#include <vector>

#include "ndp/core/core.h"

namespace trimoe::ndp {

// Bytes of an expert from a seed: every code of the type is drawn, padding included, at magnitudes that keep
// activations near one. Scales and biases too.
std::vector<std::byte> draw_expert(const ExpertShape& shape, Number number, uint64_t seed);

// Activations from a seed: magnitudes of 1/8 to 2, both signs.
std::vector<Bf16> draw_rows(int64_t count, uint64_t seed);

// [tokens, H] each.
struct ReferenceResult {
  std::vector<double> values;
  std::vector<double> bounds;  // that the core's distance from `values` may not exceed
};

// scale * (down(act(gate(x)) * up(x)) + bias). Weights and x must be finite.
//
// The bound: a sum of n products in fp32, in any order, is off by at most n u / (1 - n u) times the sum of
// their magnitudes, u = 2^-24; bf16 rounds h once, by 2^-8 of it at most; the slope of the activation carries
// the error of its input on.
ReferenceResult reference_ffn(const CoreExpert& expert, const Bf16* x, int64_t tokens, double scale);

}  // namespace trimoe::ndp
