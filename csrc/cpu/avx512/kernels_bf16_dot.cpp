// AVX512_BF16: one VDPBF16PS multiplies a pair of k, activations stay bf16.
#include "cpu/avx512/kernels.h"
#include "cpu/avx512/vec.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"

namespace trimoe::cpu {
namespace {

struct StepBf16Dot {
  using A = Bf16;
  static constexpr int64_t kPerStep = 2;
  static constexpr int kWeightRegisters = 1;
  static __m512bh load(const std::byte* from) { return (__m512bh)_mm512_load_si512(from); }
  template <int kVecs>
  static void multiply_add(const Bf16* a, const __m512bh (&w)[kVecs], __m512 (&c)[kVecs]) {
    int pair;
    __builtin_memcpy(&pair, a, sizeof pair);
    const auto x = (__m512bh)_mm512_set1_epi32(pair);
    for (int i = 0; i < kVecs; ++i) c[i] = _mm512_dpbf16_ps(c[i], x, w[i]);
  }
};

}  // namespace

namespace avx512 {

constinit const Kernel bf16_dot =
    make_kernel<DType::kBf16, Bf16>(DType::kBf16, kVectorRows, gemm<Avx512, StepBf16Dot>);

}  // namespace avx512
}  // namespace trimoe::cpu
