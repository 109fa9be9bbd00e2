// AVX-VNNI: VPDPBUSD multiplies four bytes a lane.
#include "cpu/avx2/kernels.h"
#include "cpu/avx2/vec.h"
#include "cpu/generic/kernels.h"

namespace trimoe::cpu::avx2::vnni {
namespace {

struct Vnni : Avx2 {
  static Int dot_bytes(Int sum, Int weights, Int a) { return _mm256_dpbusd_avx_epi32(sum, weights, a); }
};

}  // namespace

constinit const Kernel int8 = by_bytes<Vnni, Format::kInt8>();
constinit const Kernel int4 = by_bytes<Vnni, Format::kInt4>();

}  // namespace trimoe::cpu::avx2::vnni
