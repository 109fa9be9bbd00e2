// AVX512_BF16: VDPBF16PS multiplies a pair of bf16 a lane; rows stay bf16.
#include "cpu/avx512/kernels.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"
#include "cpu/generic/steps.h"
#include "cpu/kernel/x86/avx512.h"

namespace trimoe::cpu {
namespace {

template <Format kFormat, class Scale>
struct PairStep : Scale {
  using A = Bf16;
  using Codes = __m512i;
  using Weights = __m512bh;
  static constexpr int kPerLine = static_cast<int>(k_per_line(kFormat)), kSubs = kPerLine / 2;
  static constexpr int kWeightRegisters = kSubs > 1 ? 2 : 1;
  static Codes load(const std::byte* from) { return _mm512_load_si512(from); }
  template <int kSub>
  static Weights decode(Codes codes) {
    return (__m512bh)pair_words<kFormat, kSub>(codes);
  }
  template <int kSub, int kVecs>
  static void multiply_add(const Bf16* a, const Weights (&w)[kVecs], __m512 (&c)[kVecs]) {
    const auto x = (__m512bh)_mm512_set1_epi32(dword_at(a + 2 * kSub));
    for (int i = 0; i < kVecs; ++i) c[i] = _mm512_dpbf16_ps(c[i], x, w[i]);
  }
};

template <Format kFormat, class Scale = Scaled<Avx512, kFormat>>
constexpr Kernel by_pairs() {
  return float_kernel<Bf16Rows>(kVectorRows, gemm<Avx512, PairStep<kFormat, Scale>>);
}

}  // namespace

namespace avx512::dot {

constinit const Kernel bf16 = by_pairs<Format::kBf16, Unscaled<Avx512>>();
constinit const Kernel fp8 = by_pairs<Format::kFp8>();
constinit const Kernel mxfp4 = by_pairs<Format::kMxfp4>();
constinit const Kernel int4_a16 = by_pairs<Format::kInt4>();

}  // namespace avx512::dot
}  // namespace trimoe::cpu
