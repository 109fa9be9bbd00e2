// One copy of the weights, spread over the machine's nodes by rows: of each matrix of each expert, node n of
// N holds the panels [n * P / N, (n + 1) * P / N).
#pragma once

#include "packed/layer.h"

namespace trimoe {

enum class Placing {
  kFresh,   // zeroed memory that nobody has written yet
  kMapped,  // a file: only pages that are not in the page cache can still be placed
};

// Touches the pages of all experts first, each from the node whose panels it holds, so that the system
// takes it from that node's memory. A page that two nodes share goes to the one that has its beginning; the
// contents stay as they are. On one node: does nothing.
void place_experts(const LayerShape& shape, const std::byte* experts, Placing placing);

}  // namespace trimoe
