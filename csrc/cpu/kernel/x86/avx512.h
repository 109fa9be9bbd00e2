// AVX-512 primitives: of the generic gemm, and of whoever decodes weights for AMX.
#pragma once

#include <cstddef>

#include <immintrin.h>

#include "cpu/kernel/decode.h"

namespace trimoe {
namespace {

// bf16 bit patterns by the low bits of a word: of e2m1 codes, of int4 codes, of e4m3 subnormals.
alignas(64) inline constexpr unsigned short kE2m1Words[32] = {
    0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80,
    0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0, 0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040,
    0x4080, 0x40c0, 0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0};
alignas(64) inline constexpr unsigned short kInt4Words[32] = {
    0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
    0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
    0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
alignas(64) inline constexpr unsigned short kSubnormalWords[32] = {0x0000, 0x3b00, 0x3b80, 0x3bc0,
                                                                   0x3c00, 0x3c20, 0x3c40, 0x3c60};

struct Avx512 {
  using Vec = __m512;
  using Int = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec set(float x) { return _mm512_set1_ps(x); }
  static Vec load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec as_float(Int bits) { return _mm512_castsi512_ps(bits); }
  static Vec to_float(Int value) { return _mm512_cvtepi32_ps(value); }
  static Vec load_bf16(const std::byte* from) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return as_float(shift_left32<16>(_mm512_cvtepu16_epi32(words)));
  }
  static Vec load_e8m0(const std::byte* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const Int bits = shift_left32<23>(_mm512_cvtepu8_epi32(bytes));
    return as_float(_mm512_max_epi32(bits, set_int(0x00400000)));  // 2^-127 is subnormal
  }

  static Int set_int(int x) { return _mm512_set1_epi32(x); }
  static Int load_int(const std::byte* from) { return _mm512_load_si512(from); }
  static Int and_int(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int madd_words(Int a, Int b) { return _mm512_madd_epi16(a, b); }
  template <int kBits>
  static Int shift_left32(Int x) {
    return _mm512_slli_epi32(x, kBits);
  }
  template <int kBits>
  static Int shift_right32(Int x) {
    return kBits ? _mm512_srli_epi32(x, kBits) : x;
  }
  template <int kBits>
  static Int shift_left16(Int x) {
    return _mm512_slli_epi16(x, kBits);
  }
  template <int kBits>
  static Int shift_right16(Int x) {
    return _mm512_srli_epi16(x, kBits);
  }

  // Words with an e4m3 code in the upper byte and nothing below.
  static Int bf16_of_e4m3(Int codes) {
    // Sign and the other seven bits in their places, the exponent 120 too small.
    const Int bits = and_int(_mm512_srai_epi16(codes, 4), _mm512_set1_epi16(static_cast<short>(0x87f0)));
    const Int normal = _mm512_add_epi16(bits, _mm512_set1_epi16(120 << 7));
    const __mmask32 subnormal = _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x7800));
    const Int value = _mm512_permutexvar_epi16(shift_right16<8>(codes), _mm512_load_si512(kSubnormalWords));
    const Int sign = and_int(codes, _mm512_set1_epi16(static_cast<short>(0x8000)));
    return _mm512_mask_blend_epi16(subnormal, normal, _mm512_or_si512(value, sign));
  }
  // Words with a code in their lowest four bits, whatever lies above.
  static Int bf16_of_int4(Int nibbles) {
    return _mm512_permutexvar_epi16(nibbles, _mm512_load_si512(kInt4Words));
  }
  static Int bf16_of_e2m1(Int nibbles) {
    return _mm512_permutexvar_epi16(nibbles, _mm512_load_si512(kE2m1Words));
  }
  // Dwords with a code in their lowest four bits, whatever lies above.
  static Vec float_of_e2m1(Int nibbles) {
    const Vec table = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    return _mm512_permutexvar_ps(nibbles, table);
  }
  static Vec float_of_int4(Int nibbles) {
    const Vec table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(nibbles, table);
  }
};

// Pairs of k as bf16 words: the sub-th of a line of weights, its scale left out.
template <Format kFormat, int kSub>
__m512i pair_words(__m512i codes) {
  if constexpr (kFormat == Format::kBf16) return codes;
  if constexpr (kFormat == Format::kFp8) return Avx512::bf16_of_e4m3(upper_bytes<Avx512, kSub>(codes));
  // Pairs lie at the low nibbles of even bytes, of odd bytes, then at the high nibbles of both.
  constexpr int kShift[] = {0, 8, 4, 12};
  const __m512i nibbles = _mm512_srli_epi16(codes, kShift[kSub % 4]);
  if constexpr (kFormat == Format::kInt4) return Avx512::bf16_of_int4(nibbles);
  return Avx512::bf16_of_e2m1(nibbles);
}

}  // namespace
}  // namespace trimoe
