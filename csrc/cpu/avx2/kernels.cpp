// AVX2 with FMA: fp32 and bf16 weights.
#include "cpu/avx2/kernels.h"

#include <immintrin.h>

#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"

namespace trimoe::cpu {
namespace {

struct Avx2 {
  using Vec = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  static Vec zero() { return _mm256_setzero_ps(); }
  static void store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
};

struct StepF32 {
  using A = float;
  static constexpr int64_t kPerStep = 1;
  static constexpr int kWeightRegisters = 1;
  static __m256 load(const std::byte* from) { return _mm256_load_ps(reinterpret_cast<const float*>(from)); }
  template <int kVecs>
  static void multiply_add(const float* a, const __m256 (&w)[kVecs], __m256 (&c)[kVecs]) {
    const __m256 x = _mm256_set1_ps(*a);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm256_fmadd_ps(x, w[i], c[i]);
  }
};

struct StepBf16 {
  using A = float;
  static constexpr int64_t kPerStep = 2;
  static constexpr int kWeightRegisters = 2;
  struct Pair {
    __m256 even, odd;
  };
  static Pair load(const std::byte* from) {
    const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  template <int kVecs>
  static void multiply_add(const float* a, const Pair (&w)[kVecs], __m256 (&c)[kVecs]) {
    const __m256 even = _mm256_set1_ps(a[0]), odd = _mm256_set1_ps(a[1]);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm256_fmadd_ps(even, w[i].even, c[i]);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm256_fmadd_ps(odd, w[i].odd, c[i]);
  }
};

}  // namespace

namespace avx2 {

constinit const Kernel f32 = make_kernel<DType::kF32, float>(DType::kF32, kVectorRows, gemm<Avx2, StepF32>);
constinit const Kernel bf16 =
    make_kernel<DType::kBf16, float>(DType::kF32, kVectorRows, gemm<Avx2, StepBf16>);

}  // namespace avx2
}  // namespace trimoe::cpu
