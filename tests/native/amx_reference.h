// What the tile gemms must give, bit by bit: plain scalar loops that share no code with the kernels, the
// packing or the model of the tile unit. Only the places of codes come from common/layout.h.
#pragma once

#include "cpu/kernel/kernel.h"

namespace trimoe::test {

// Rows in 8 bits. Sums of (code - zero) * row code are exact, per group of k; then
// C = (sum * column scale) * row scale, added up from group to group by fused multiply-adds in fp32.
void reference_int8(Format weights, const GemmArgs& args);

// Rows in bf16. Within a tile of 32 k: sums over even and over odd k, fused, from +0, flushed to zero where
// subnormal; then the tile's sum += even + odd. That is the order of TDPBF16PS in Intel's manual.
//   bf16         C = sum
//   int4, mxfp4  the same with weight = code * scale rounded to bf16
//   fp8          sums end with their group of k; C = sum * scale, added up by fused multiply-adds
void reference_bf16(Format weights, const GemmArgs& args);

}  // namespace trimoe::test
