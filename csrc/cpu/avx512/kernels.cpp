// Plain AVX-512: floats by FMA, integers by products of words.
#include "cpu/avx512/kernels.h"

#include "cpu/generic/kernels.h"
#include "cpu/kernel/x86/avx512.h"

namespace trimoe::cpu::avx512 {

constinit const Kernel f32 = by_fma<Avx512, F32Step<Avx512>, F32Rows>();
constinit const Kernel bf16 = by_fma<Avx512, Bf16Step<Avx512>>();
constinit const Kernel fp8 = by_fma<Avx512, Fp8Step<Avx512>>();
constinit const Kernel mxfp4 = by_fma<Avx512, FourBitStep<Avx512, Format::kMxfp4>>();
constinit const Kernel int4_a16 = by_fma<Avx512, FourBitStep<Avx512, Format::kInt4>>();
constinit const Kernel int8 = by_words<Avx512, Format::kInt8>();
constinit const Kernel int4 = by_words<Avx512, Format::kInt4>();

}  // namespace trimoe::cpu::avx512
