// AVX2: floats by FMA, integers by products of words.
#include "cpu/avx2/kernels.h"

#include "cpu/avx2/vec.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"
#include "cpu/generic/steps.h"

namespace trimoe::cpu::avx2 {
namespace {

template <class Step, class Rows = RoundedRows>
constexpr Kernel by_fma() {
  return float_kernel<Rows>(kVectorRows, gemm<Avx2, Step>);
}

template <Format kFormat>
constexpr Kernel by_words() {
  return quantized_kernel<RowType::kInt16>(kVectorRows, gemm<Avx2, MaddStep<Avx2, kFormat>>);
}

}  // namespace

constinit const Kernel f32 = by_fma<F32Step<Avx2>, F32Rows>();
constinit const Kernel bf16 = by_fma<Bf16Step<Avx2>>();
constinit const Kernel fp8 = by_fma<Fp8Step<Avx2>>();
constinit const Kernel mxfp4 = by_fma<FourBitStep<Avx2, Format::kMxfp4>>();
constinit const Kernel int4_a16 = by_fma<FourBitStep<Avx2, Format::kInt4>>();
constinit const Kernel int8 = by_words<Format::kInt8>();
constinit const Kernel int4 = by_words<Format::kInt4>();

}  // namespace trimoe::cpu::avx2
