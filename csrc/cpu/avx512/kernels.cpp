// Plain AVX-512: fp32 and bf16 weights by FMA.
#include "cpu/avx512/kernels.h"

#include "cpu/avx512/vec.h"
#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"

namespace trimoe::cpu::avx512 {

constinit const Kernel f32 = make_kernel<DType::kF32, float>(DType::kF32, kVectorRows, gemm<Avx512, StepF32>);
constinit const Kernel bf16_fma =
    make_kernel<DType::kBf16, float>(DType::kF32, kVectorRows, gemm<Avx512, StepBf16Fma>);

}  // namespace trimoe::cpu::avx512
