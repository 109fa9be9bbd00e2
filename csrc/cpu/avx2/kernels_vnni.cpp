// AVX-VNNI: VPDPBUSD multiplies four bytes a lane.
#include "cpu/avx2/kernels.h"
#include "cpu/avx2/vec.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"
#include "cpu/generic/steps.h"

namespace trimoe::cpu {
namespace {

struct Avx2Vnni : Avx2 {
  static Int dot_bytes(Int sum, Int weights, Int a) { return _mm256_dpbusd_avx_epi32(sum, weights, a); }
};

template <Format kFormat>
constexpr Kernel by_dot() {
  return quantized_kernel<RowType::kInt8>(kVectorRows, gemm<Avx2Vnni, DotStep<Avx2Vnni, kFormat>>);
}

}  // namespace

namespace avx2::vnni {

constinit const Kernel int8 = by_dot<Format::kInt8>();
constinit const Kernel int4 = by_dot<Format::kInt4>();

}  // namespace avx2::vnni
}  // namespace trimoe::cpu
