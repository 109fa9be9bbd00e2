// AVX-512 primitives of the generic gemm.
#pragma once

#include <immintrin.h>

#include "common/dtype.h"

namespace trimoe::cpu {
namespace {

struct Avx512 {
  using Vec = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  static Vec zero() { return _mm512_setzero_ps(); }
  static void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
};

struct StepF32 {
  using A = float;
  static constexpr int64_t kPerStep = 1;
  static constexpr int kWeightRegisters = 1;
  static __m512 load(const std::byte* from) { return _mm512_load_ps(from); }
  template <int kVecs>
  static void multiply_add(const float* a, const __m512 (&w)[kVecs], __m512 (&c)[kVecs]) {
    const __m512 x = _mm512_set1_ps(*a);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm512_fmadd_ps(x, w[i], c[i]);
  }
};

// bf16 weights widened to fp32 and multiplied by FMA: exact products.
struct StepBf16Fma {
  using A = float;
  static constexpr int64_t kPerStep = 2;
  static constexpr int kWeightRegisters = 2;
  struct Pair {
    __m512 even, odd;
  };
  static Pair load(const std::byte* from) {
    const __m512i pairs = _mm512_load_si512(from);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  template <int kVecs>
  static void multiply_add(const float* a, const Pair (&w)[kVecs], __m512 (&c)[kVecs]) {
    const __m512 even = _mm512_set1_ps(a[0]), odd = _mm512_set1_ps(a[1]);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm512_fmadd_ps(even, w[i].even, c[i]);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm512_fmadd_ps(odd, w[i].odd, c[i]);
  }
};

}  // namespace
}  // namespace trimoe::cpu
