// The expert FFN driver: out = sum over a token's experts of weight * down(act(gate x, up x)).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "common/parallel.h"
#include "cpu/ffn/route.h"
#include "cpu/kernel/kernel.h"
#include "packed/layer.h"

namespace trimoe::cpu {

// An expert that the host computes: its rows of the routing, and where its packed bytes lie.
struct HostExpert : Routing::Expert {
  const std::byte* weights = nullptr;
};

struct FfnArgs {
  RowSource hidden;  // [tokens, H]
  int64_t tokens;
  int64_t topk;                         // of the router: bounds the rows of a chunk of tokens
  const Routing& routing;               // of all tokens
  std::span<const HostExpert> experts;  // to compute, in order of index
  void* out;                            // [tokens, H] contiguous, in the type of hidden
  // What the sums start from, [tokens, H] contiguous; null, or no function: zeros. Asked once, after gate and
  // up of the first chunk: until then others may be at work on it. What it throws ends the call.
  std::function<const float*()> initial;
};

// Deterministic: the result does not depend on the pool or its number of threads, bit for bit. Returns the
// nanoseconds that it took, without those in which `initial` was waited for.
int64_t expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const FfnArgs& args);

// Every expert of the routing, where it lies in the layer.
void all_on_host(const Layer& layer, const Routing& routing, std::vector<HostExpert>& experts);

// The router's whole choice on the host.
int64_t expert_ffn(Layer& layer, const Kernel& kernel, const ThreadPool& pool, const RowSource& hidden,
                   const RouterOutput& router, int64_t tokens, void* out);

}  // namespace trimoe::cpu
