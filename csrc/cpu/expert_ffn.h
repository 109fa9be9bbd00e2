// The expert FFN driver: out = sum over a token's experts of weight * down(act(gate x, up x)).
#pragma once

#include "common/kernel.h"
#include "common/parallel.h"
#include "cpu/layer.h"
#include "cpu/route.h"

namespace trimoe::cpu {

struct FfnArgs {
  RowSource hidden;  // [tokens, H]
  RouterOutput router;
  int64_t tokens;
  void* out;                                  // [tokens, H] contiguous, in the type of hidden
  const float* initial = nullptr;             // [tokens, H] contiguous: what the sums start from; null: zeros
  const std::byte* const* experts = nullptr;  // [E] where each expert's packed bytes lie; null: in the layer
};

// Deterministic: the result does not depend on the pool or its number of threads, bit for bit.
void expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const FfnArgs& args);

}  // namespace trimoe::cpu
