// An expert cut along I, for as many DIMMs to compute at once. Each part is a packed expert of its own: a run
// of the rows of gate and up, and the same k of down, codes and scales as they were. What the parts compute
// adds up to what the expert does; the first alone has down's bias.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "packed/expert_shape.h"

namespace trimoe::ndp {

struct SplitPart {
  int64_t begin, end;  // of I; equal: nothing is left for it
  ExpertShape shape;
};

// As even as whole panels and groups of k allow. Where a part ends within a group of int4, the parts have
// groups of 32, which repeat their scales.
std::vector<SplitPart> split(const ExpertShape& whole, int parts);

// The part's bytes from the expert's, and back: every part of an expert leaves its own bytes in `to`.
void cut_part(const ExpertShape& whole, const std::byte* from, const SplitPart& part, std::byte* to);
void join_part(const ExpertShape& whole, const SplitPart& part, const std::byte* from, std::byte* to);

// An expert whose weights are 0: what join_part() begins with.
void clear_expert(const ExpertShape& shape, std::byte* bytes);

}  // namespace trimoe::ndp
