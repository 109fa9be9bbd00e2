// Small floats: e4m3fn and e2m1 to fp32 and back, e8m0 (a power of two) to fp32. Branch-free, so that
// loops vectorise; in an unnamed namespace for the reason that convert.h gives.
#pragma once

#include "common/convert.h"

namespace trimoe {

struct E4m3 {  // no infinities; 0x7f and 0xff are NaN
  uint8_t bits;
};

struct E2m1 {  // 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, in the low four bits
  uint8_t bits;
};

struct E8m0 {  // 2^(bits - 127); 255 is NaN
  uint8_t bits;
};

namespace {

// A code without its sign: shifted into a float whose exponent is too small, then scaled by a power
// of two, which brings subnormals out right for free.
template <int kMantissaBits, int kBias>
inline float magnitude_of(uint32_t code) {
  return bits_to_f32(code << (23 - kMantissaBits)) * bits_to_f32(uint32_t{254 - kBias} << 23);
}

// The nearest code of |value|, ties to even; |value| must not round beyond the largest code.
template <int kMantissaBits, int kBias>
inline uint32_t nearest_code(float value) {
  constexpr int kDropped = 23 - kMantissaBits;
  const uint32_t magnitude = f32_to_bits(value) & 0x7fffffffu;
  // Normal codes: rebias by integer arithmetic. Subnormal codes: let the float adder round.
  const uint32_t to_even = (magnitude >> kDropped) & 1u;
  const uint32_t rebiased = magnitude - (uint32_t{127 - kBias} << 23);
  const uint32_t normal = (rebiased + (1u << (kDropped - 1)) - 1u + to_even) >> kDropped;
  constexpr uint32_t kAdder = uint32_t{127 + kDropped + 1 - kBias} << 23;
  const uint32_t subnormal = f32_to_bits(bits_to_f32(magnitude) + bits_to_f32(kAdder)) - kAdder;
  return magnitude < (uint32_t{128 - kBias} << 23) ? subnormal : normal;
}

inline float to_f32(E4m3 code) {
  const uint32_t magnitude = code.bits & 0x7fu;
  const uint32_t nan = magnitude == 0x7fu ? 0x7fc00000u : 0u;
  return bits_to_f32(f32_to_bits(magnitude_of<3, 7>(magnitude)) | nan | (code.bits & 0x80u) << 24);
}

inline float to_f32(E2m1 code) {
  return bits_to_f32(f32_to_bits(magnitude_of<1, 1>(code.bits & 7u)) | (code.bits & 8u) << 28);
}

inline float to_f32(E8m0 code) {
  const uint32_t special = code.bits == 0 ? 0x00400000u : code.bits == 255 ? 0x7fc00000u : 0u;
  return bits_to_f32(uint32_t{code.bits} << 23 | special);
}

template <>
inline E4m3 from_f32<E4m3>(float value) {  // |value| < 464
  return {static_cast<uint8_t>(nearest_code<3, 7>(value) | (f32_to_bits(value) >> 24 & 0x80u))};
}

template <>
inline E2m1 from_f32<E2m1>(float value) {  // |value| <= 6
  return {static_cast<uint8_t>(nearest_code<1, 1>(value) | (f32_to_bits(value) >> 28 & 8u))};
}

}  // namespace
}  // namespace trimoe
