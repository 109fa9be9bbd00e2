// AVX2 primitives of the generic gemm.
#pragma once

#include <cstddef>

#include <immintrin.h>

namespace trimoe::cpu {
namespace {

struct Avx2 {
  using Vec = __m256;
  using Int = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec set(float x) { return _mm256_set1_ps(x); }
  static Vec load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec as_float(Int bits) { return _mm256_castsi256_ps(bits); }
  static Vec to_float(Int value) { return _mm256_cvtepi32_ps(value); }
  static Vec load_bf16(const std::byte* from) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return as_float(shift_left32<16>(_mm256_cvtepu16_epi32(words)));
  }
  static Vec load_e8m0(const std::byte* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const Int bits = shift_left32<23>(_mm256_cvtepu8_epi32(bytes));
    return as_float(_mm256_max_epi32(bits, set_int(0x00400000)));  // 2^-127 is subnormal
  }

  static Int set_int(int x) { return _mm256_set1_epi32(x); }
  static Int load_int(const std::byte* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Int and_int(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int madd_words(Int a, Int b) { return _mm256_madd_epi16(a, b); }
  template <int kBits>
  static Int shift_left32(Int x) {
    return _mm256_slli_epi32(x, kBits);
  }
  template <int kBits>
  static Int shift_right32(Int x) {
    return kBits ? _mm256_srli_epi32(x, kBits) : x;
  }
  template <int kBits>
  static Int shift_left16(Int x) {
    return _mm256_slli_epi16(x, kBits);
  }
  template <int kBits>
  static Int shift_right16(Int x) {
    return _mm256_srli_epi16(x, kBits);
  }

  // Words with an e4m3 code in the upper byte and nothing below.
  static Int bf16_of_e4m3(Int codes) {
    // Sign and the other seven bits in their places, the exponent 120 too small.
    const Int bits = and_int(_mm256_srai_epi16(codes, 4), _mm256_set1_epi16(static_cast<short>(0x87f0)));
    const Int normal = _mm256_add_epi16(bits, _mm256_set1_epi16(120 << 7));
    const Int exponent = and_int(codes, _mm256_set1_epi16(0x7800));
    const Int subnormal = _mm256_cmpeq_epi16(exponent, _mm256_setzero_si256());
    // m * 2^-9: the two bytes of its bf16 from two tables, by m in the upper byte of a word and below.
    const Int high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c, 0, 0, 0, 0, 0, 0, 0, 0));
    const Int low = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 0, static_cast<char>(0x80), static_cast<char>(0xc0), 0, 0x20, 0x40, 0x60, 0, 0, 0, 0, 0, 0, 0, 0));
    const Int m = and_int(codes, _mm256_set1_epi16(0x0700));
    const Int value =
        _mm256_or_si256(_mm256_shuffle_epi8(high, m), _mm256_shuffle_epi8(low, shift_right16<8>(m)));
    const Int sign = and_int(codes, _mm256_set1_epi16(static_cast<short>(0x8000)));
    return _mm256_blendv_epi8(normal, _mm256_or_si256(value, sign), subnormal);
  }
  // Dwords with a code in their lowest four bits, whatever lies above.
  static Vec float_of_e2m1(Int nibbles) {
    const Vec magnitude = _mm256_permutevar8x32_ps(_mm256_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6), nibbles);
    const Int sign = and_int(shift_left32<28>(nibbles), set_int(static_cast<int>(0x80000000u)));
    return _mm256_or_ps(magnitude, as_float(sign));
  }
  static Vec float_of_int4(Int nibbles) {
    return to_float(_mm256_sub_epi32(and_int(nibbles, set_int(15)), set_int(8)));
  }
};

}  // namespace
}  // namespace trimoe::cpu
