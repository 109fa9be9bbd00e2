// AVX-512 primitives of the generic gemm.
#pragma once

#include <immintrin.h>

#include "common/dtype.h"

namespace trimoe::cpu {
namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kMaxAccumulators = 24;  // of 32 registers: the rest hold weights and broadcasts
  static Vec zero() { return _mm512_setzero_ps(); }
  static void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
};

struct StepF32 {
  using A = float;
  static constexpr int64_t kPerStep = 1;
  static __m512 load(const std::byte* from) { return _mm512_load_ps(from); }
  static __m512 multiply_add(const float* a, __m512 w, __m512 c) { return _mm512_fmadd_ps(_mm512_set1_ps(*a), w, c); }
};

// bf16 weights widened to fp32 and multiplied by FMA: exact products.
struct StepBf16Fma {
  using A = float;
  static constexpr int64_t kPerStep = 2;
  struct Pair {
    __m512 even, odd;
  };
  static Pair load(const std::byte* from) {
    const __m512i pairs = _mm512_load_si512(from);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static __m512 multiply_add(const float* a, Pair w, __m512 c) {
    c = _mm512_fmadd_ps(_mm512_set1_ps(a[0]), w.even, c);
    return _mm512_fmadd_ps(_mm512_set1_ps(a[1]), w.odd, c);
  }
};

}  // namespace
}  // namespace trimoe::cpu
