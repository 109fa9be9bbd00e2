// What the host computes of a chunk of tokens: the rows of its experts, one behind the other.
#pragma once

#include <vector>

#include "cpu/ffn/expert_ffn.h"

namespace trimoe::cpu {

struct ChunkRows {
  std::vector<HostExpert> experts;  // those that have rows here, which are rows of these two:
  std::vector<int32_t> tokens;      // relative to the first of the chunk
  std::vector<float> weights;       // of the router

  void take(const FfnArgs& args, int64_t first_token, int64_t token_count);
};

}  // namespace trimoe::cpu
