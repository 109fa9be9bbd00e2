// The arithmetic of the NDP core: one expert FFN on the packed bytes, rank by rank, in a fixed order.
//
// I is cut into kLeaves leaves of whole gate/up panels; a rank owns a run of leaves: their gate/up panels and
// the same k of the down matrix. Each output of gate and up is one sum, in order of k. Each output of down is
// one sum per leaf, in order of k, and a binary tree over the leaves, of which a rank adds the part over its
// own and reduce() the part over the ranks. So the bits of the result do not depend on the number of ranks.
//
// Products and sums are fp32, never fused. Where weights have scales, the codes of a group of k (within its
// leaf) are summed, the sum is multiplied by the scale, and the groups are added in order of k.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "common/dtype.h"
#include "packed/expert_shape.h"

namespace trimoe::ndp {

// Types of weights, in the order of the descriptor's dtype bits.
enum class Number : uint8_t { kBf16, kF16, kInt8, kInt4 };
inline constexpr std::array<std::string_view, 4> kNumberNames = {"bf16", "fp16", "int8", "int4"};

// How weights of that type lie; fp16 lies as bf16 does.
constexpr Format packed_format(Number number) {
  return number == Number::kInt8 ? Format::kInt8 : number == Number::kInt4 ? Format::kInt4 : Format::kBf16;
}

struct CoreExpert {
  ExpertShape shape;  // its format is packed_format(number)
  Number number = Number::kBf16;
  const std::byte* data = nullptr;  // shape.expert_bytes() of them, at any address
};

// Throws Error for a shape that the core cannot compute. The other functions trust it to have been called.
void validate(const ExpertShape& shape, Number number);

inline constexpr int64_t kLeaves = 8;

// What one rank owns: leaves, gate/up panels, and of I (the rows of gate and up, the k of down) a range.
struct Slice {
  int64_t first_leaf, leaves;
  int64_t first_panel, panels;
  int64_t k_begin, k_end;
};

// Throws Error unless ranks is 1, 2, 4 or 8 and rank is one of them.
Slice slice_of(const ExpertShape& shape, int rank, int ranks);

// sums[tokens, panels * 32] = x[tokens, H] times the slice's gate/up panels, in panel order, without bias.
void gate_up(const CoreExpert& expert, const Slice& slice, const Bf16* x, int64_t tokens, float* sums);

// h[tokens, k_end - k_begin] = act(gate + bias) * (up + bias), or act(up + bias), rounded to bf16.
void activate(const CoreExpert& expert, const Slice& slice, const float* sums, int64_t tokens, Bf16* h);

// partial[tokens, H] = h times the slice's k of the down matrix, without bias.
void down(const CoreExpert& expert, const Slice& slice, const Bf16* h, int64_t tokens, float* partial);

// result[tokens, H] (+)= scale * (sum over ranks + bias). One partial per rank, in order of rank.
void reduce(const CoreExpert& expert, std::span<const float* const> partials, int64_t tokens, float scale,
            bool accumulate, float* result);

// All of it: the ranks one after the other, then reduce(). Throws Error as slice_of() does.
void expert_ffn(const CoreExpert& expert, int ranks, const Bf16* x, int64_t tokens, float scale,
                bool accumulate, float* result);

}  // namespace trimoe::ndp
