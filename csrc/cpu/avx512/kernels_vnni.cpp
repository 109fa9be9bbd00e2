// AVX512_VNNI: VPDPBUSD multiplies four bytes a lane.
#include "cpu/avx512/kernels.h"
#include "cpu/generic/kernels.h"
#include "cpu/kernel/x86/avx512.h"

namespace trimoe::cpu::avx512::vnni {
namespace {

struct Vnni : Avx512 {
  static Int dot_bytes(Int sum, Int weights, Int a) { return _mm512_dpbusd_epi32(sum, weights, a); }
};

}  // namespace

constinit const Kernel int8 = by_bytes<Vnni, Format::kInt8>();
constinit const Kernel int4 = by_bytes<Vnni, Format::kInt4>();

}  // namespace trimoe::cpu::avx512::vnni
