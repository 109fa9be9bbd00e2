// Codes below 16 bits (except int8, which AMX multiplies as it is) -> tiles that AMX multiplies. One
// stored k tile becomes kSteps steps of B, each two column tiles; the sub-th part of a stored line
// becomes one line of B.
#pragma once

#include "amx/tile_gemm.h"
#include "cpu/kernel/decode.h"
#include "cpu/kernel/x86/avx512.h"

namespace trimoe::amx {
namespace {

// Lines of B that one stored line yields, and steps of B that one stored k tile yields.
template <Format kFormat, Product kProduct>
inline constexpr int kExpansion =
    static_cast<int>(k_per_line(kFormat)) / (kProduct == Product::kBf16 ? 2 : 4);

// The pair of bf16 in every dword times the scale of its column, which bf16 holds: mxfp4's are powers of two.
inline __m512i scale_pairs(__m512i words, __m512 scale) {
  const __m512 even = Avx512::mul(Avx512::as_float(Avx512::shift_left32<16>(words)), scale);
  const __m512 odd = Avx512::mul(
      Avx512::as_float(Avx512::and_int(words, Avx512::set_int(static_cast<int>(0xffff0000u)))), scale);
  // Both halves come packed one after the other; the dword of a column takes one word of each.
  const auto halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

template <Format kFormat, Product kProduct, bool kScaled, int kSub>
[[gnu::always_inline]] inline void expand_line(__m512i codes, __m512 scale, std::byte* to) {
  if constexpr (kSub < kExpansion<kFormat, kProduct>) {
    __m512i line;
    if constexpr (kProduct == Product::kInt8) {
      line = code_bytes<Avx512, kFormat, kSub>(codes);
    } else {
      line = pair_words<kFormat, kSub>(codes);
      if constexpr (kScaled) line = scale_pairs(line, scale);
    }
    _mm512_store_si512(to + kSub * kLineBytes, line);
    expand_line<kFormat, kProduct, kScaled, kSub + 1>(codes, scale, to);
  }
}

// One stored k tile of a panel, both column tiles, into consecutive steps of B at `to`. `scales` are
// those of this k tile's first group; without kScaled they are left to whoever takes the sums.
template <Format kFormat, Product kProduct, bool kScaled>
void expand_tile(const std::byte* w, const std::byte* scales, int64_t group_lines, std::byte* to) {
  constexpr int kLines = kExpansion<kFormat, kProduct>;  // of B, per stored line
  for (int64_t tile = 0; tile < 2; ++tile) {
    __m512 scale = Avx512::zero();
    for (int64_t line = 0; line < kTileLines; ++line) {
      if constexpr (kScaled)
        if (line % group_lines == 0) scale = load_scale<Avx512, kFormat>(scales, line / group_lines, tile);
      const int64_t out = line * kLines;
      expand_line<kFormat, kProduct, kScaled, 0>(
          _mm512_load_si512(w + tile * kTileBytes + line * kLineBytes), scale,
          to + out / kTileLines * kStepBytes + tile * kTileBytes + out % kTileLines * kLineBytes);
    }
  }
}

}  // namespace
}  // namespace trimoe::amx
