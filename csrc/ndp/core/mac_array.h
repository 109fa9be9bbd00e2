// The MAC array: 32 columns of a packed panel side by side, one k after the other.
#pragma once

#include "ndp/core/core.h"

namespace trimoe::ndp {

// Rows of fp32.
struct Rows {
  const float* data;
  int64_t stride;
  int64_t count;
};

// One panel of a packed matrix, of which k [k_begin, k_end) are multiplied; k_begin is a multiple of 16.
struct PanelPart {
  const std::byte* panel;
  const PackedMatrix& matrix;
  int64_t k_begin, k_end;
};

// sums[t][column] = sum over k of x[t][k - k_begin] * w[k][column], scales applied; zeros for no k.
// group_sums: room for 32 numbers a row.
void multiply(Number number, const PanelPart& part, const Rows& x, float* group_sums, float* sums,
              int64_t sums_stride);

}  // namespace trimoe::ndp
