// Table rows from a vector instruction set and a step, all of one recipe.
#pragma once

#include "cpu/generic/gemm.h"
#include "cpu/generic/rows.h"
#include "cpu/generic/steps.h"

namespace trimoe::cpu {
namespace {

template <class I, class Step, class Rows = RoundedRows>
constexpr Kernel by_fma() {
  return float_kernel<Rows>(kVectorRows, gemm<I, Step>);
}

// Codes multiplied as words, or by instructions that take bytes.
template <class I, Format kFormat>
constexpr Kernel by_words() {
  return quantized_kernel<RowType::kInt16>(kVectorRows, gemm<I, MaddStep<I, kFormat>>);
}
template <class I, Format kFormat>
constexpr Kernel by_bytes() {
  return quantized_kernel<RowType::kInt8>(kVectorRows, gemm<I, DotStep<I, kFormat>>);
}

}  // namespace
}  // namespace trimoe::cpu
