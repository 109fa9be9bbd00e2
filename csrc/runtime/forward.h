// The native executor: a call's experts where the plan has them, all domains at once, and the sums of all.
#pragma once

#include <span>

#include "common/parallel.h"
#include "cpu/ffn/route.h"
#include "cpu/kernel/kernel.h"
#include "runtime/layer.h"

namespace trimoe::runtime {

struct Call {
  RowSource hidden;  // [tokens, H]
  cpu::RouterOutput router;
  int64_t tokens;
  void* out;  // [tokens, H] contiguous, in the type of hidden
  std::span<const int32_t>
      plan;  // [E]; empty: the layer's policy decides, and where there is none the CPU has all
};

// Other domains begin before the CPU does, on the caller's thread and pool, and end before this returns.
// Their sums are added in order of their codes, before the CPU's: the result depends on the plan, never on
// timing. kernel: of the CPU. Throws Error for a plan that cannot be run, and what policies and domains
// throw.
void forward(const OpenLayer& layer, const Kernel& kernel, const ThreadPool& pool, const Call& call);

}  // namespace trimoe::runtime
