// Scalar conversions to and from fp32, round to nearest even; branch-free, so that loops vectorise.
//
// Included by code that is compiled once per instruction set: everything lives in an unnamed
// namespace, so that the linker can never replace a baseline copy by one that needs AVX-512.
#pragma once

#include <bit>

#include "common/dtype.h"

namespace trimoe {
namespace {

inline float bits_to_f32(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t f32_to_bits(float value) { return std::bit_cast<uint32_t>(value); }

inline float to_f32(float value) { return value; }
inline float to_f32(Bf16 value) { return bits_to_f32(uint32_t{value.bits} << 16); }

inline float to_f32(F16 value) {
  // Shift the half into a float whose exponent is 112 too small, then scale by 2^112: subnormals
  // come out right for free; infinities and NaNs get the full exponent back.
  const uint32_t magnitude = uint32_t{value.bits & 0x7fffu} << 13;
  const float scaled = bits_to_f32(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= (0x7c00u << 13) ? 0x7f800000u : 0u;
  return bits_to_f32(f32_to_bits(scaled) | special | (uint32_t{value.bits & 0x8000u} << 16));
}

template <typename T>
T from_f32(float value);

template <>
inline float from_f32<float>(float value) {
  return value;
}

template <>
inline Bf16 from_f32<Bf16>(float value) {
  const uint32_t bits = f32_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;  // rounding could carry a NaN into infinity
  return Bf16{static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded)};
}

template <>
inline F16 from_f32<F16>(float value) {
  const uint32_t bits = f32_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal halves: rebias by integer arithmetic. Subnormal halves: let the float adder round.
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t subnormal = f32_to_bits(bits_to_f32(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return F16{static_cast<uint16_t>(sign | (magnitude >= 0x477ff000u ? overflow : finite))};
}

inline float round_to_bf16(float value) { return to_f32(from_f32<Bf16>(value)); }

}  // namespace
}  // namespace trimoe
