// AVX2: floats by FMA, integers by products of words.
#include "cpu/avx2/kernels.h"

#include "cpu/avx2/vec.h"
#include "cpu/generic/kernels.h"

namespace trimoe::cpu::avx2 {

constinit const Kernel f32 = by_fma<Avx2, F32Step<Avx2>, F32Rows>();
constinit const Kernel bf16 = by_fma<Avx2, Bf16Step<Avx2>>();
constinit const Kernel fp8 = by_fma<Avx2, Fp8Step<Avx2>>();
constinit const Kernel mxfp4 = by_fma<Avx2, FourBitStep<Avx2, Format::kMxfp4>>();
constinit const Kernel int4_a16 = by_fma<Avx2, FourBitStep<Avx2, Format::kInt4>>();
constinit const Kernel int8 = by_words<Avx2, Format::kInt8>();
constinit const Kernel int4 = by_words<Avx2, Format::kInt4>();

}  // namespace trimoe::cpu::avx2
