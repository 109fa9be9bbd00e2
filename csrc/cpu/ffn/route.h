// Routing: groups the (token, expert) pairs of a call by expert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/dtype.h"

namespace trimoe::cpu {

// The router's choice for tokens [0, tokens): ids and weights of any stride and type.
struct RouterOutput {
  const void* ids;
  bool ids_are_int64;
  int64_t ids_row_stride, ids_col_stride;
  const void* weights;
  DType weights_dtype;
  int64_t weights_row_stride, weights_col_stride;
  int64_t topk;
};

inline constexpr int64_t kMaxTopk = int64_t{1} << 16;
inline constexpr int64_t kMaxPairs = (int64_t{1} << 31) - 1;

// Throws Error for more (token, expert) pairs than 32 bits can count, which also bounds the tokens.
void check_pairs(int64_t tokens, int64_t topk);

// Rows sorted by expert, by token within an expert. Ids outside [0, experts) are dropped.
struct Routing {
  struct Expert {
    int32_t index;
    int32_t begin, end;  // rows
  };
  std::vector<Expert> active;   // experts that have rows, in order of index
  std::vector<int32_t> tokens;  // token of each row
  std::vector<float> weights;   // router weight of each row

  // Reads the router's choice once: whoever else writes to it meanwhile changes results, never where rows
  // are written.
  void assign(const RouterOutput& router, int64_t tokens, int64_t experts);

 private:
  std::vector<int32_t> offsets_, ids_;
};

}  // namespace trimoe::cpu
