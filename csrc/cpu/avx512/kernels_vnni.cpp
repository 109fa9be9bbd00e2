// AVX512_VNNI: VPDPBUSD multiplies four bytes a lane.
#include "common/x86/avx512.h"
#include "cpu/avx512/kernels.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"
#include "cpu/generic/steps.h"

namespace trimoe::cpu {
namespace {

struct Avx512Vnni : Avx512 {
  static Int dot_bytes(Int sum, Int weights, Int a) { return _mm512_dpbusd_epi32(sum, weights, a); }
};

template <Format kFormat>
constexpr Kernel by_dot() {
  return quantized_kernel<RowType::kInt8>(kVectorRows, gemm<Avx512Vnni, DotStep<Avx512Vnni, kFormat>>);
}

}  // namespace

namespace avx512::vnni {

constinit const Kernel int8 = by_dot<Format::kInt8>();
constinit const Kernel int4 = by_dot<Format::kInt4>();

}  // namespace avx512::vnni
}  // namespace trimoe::cpu
