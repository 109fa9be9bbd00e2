#include "cpu/ffn/chunk_rows.h"

#include <algorithm>

namespace trimoe::cpu {

void ChunkRows::take(const FfnArgs& args, int64_t first_token, int64_t token_count) {
  experts.clear();
  tokens.clear();
  weights.clear();
  const int32_t* all = args.routing.tokens.data();
  for (const HostExpert& one : args.experts) {
    // Tokens of an expert are in order.
    const int32_t* begin = std::lower_bound(all + one.begin, all + one.end, first_token);
    const int32_t* end = std::lower_bound(begin, all + one.end, first_token + token_count);
    if (begin == end) continue;
    const auto row = static_cast<int32_t>(tokens.size());
    experts.push_back({{one.index, row, row + static_cast<int32_t>(end - begin)}, one.weights});
    for (const int32_t* token = begin; token < end; ++token)
      tokens.push_back(static_cast<int32_t>(*token - first_token));
    const float* from = args.routing.weights.data() + (begin - all);
    weights.insert(weights.end(), from, from + (end - begin));
  }
}

}  // namespace trimoe::cpu
