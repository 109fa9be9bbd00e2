// exp, erf and the activations as branch-free scalar text: the compiler vectorises it for whatever
// instruction set includes it. Absolute error of each activation below 5e-7 relative to max(1, |x|).
#pragma once

#include "common/convert.h"
#include "packed/activation.h"

namespace trimoe::cpu {
namespace {

// exp(x) for any x: 2^n * p(r), r in [-ln2/2, ln2/2], Taylor to degree 6; overflow gives infinity,
// NaN stays NaN.
inline float exp_approx(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n as 2^(n-1) * 2, so that n = 128 does not wrap the exponent.
  const uint32_t exponent = (f32_to_bits(shifted) - 0x4b400000u + 126u) << 23;
  return p * bits_to_f32(exponent) * 2.0f;
}

inline float sigmoid_approx(float x) { return 1.0f / (1.0f + exp_approx(-x)); }

// Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7.
inline float erf_approx(float x) {
  const float z = x < 0.0f ? -x : x;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 1.0f - p * t * exp_approx(-z * z);
  return x < 0.0f ? -tail : tail;
}

template <Activation kKind>
inline float activate_one(float x) {
  if constexpr (kKind == Activation::kSilu) return x * sigmoid_approx(x);
  if constexpr (kKind == Activation::kGelu) return 0.5f * x * (1.0f + erf_approx(x * 0.707106781f));
  if constexpr (kKind == Activation::kGeluTanh)
    return x * sigmoid_approx(1.59576912f * (x + 0.044715f * x * x * x));
  const float positive = x < 0.0f ? 0.0f : x;
  return positive * positive;
}

inline float clamped_swiglu(float gate, float up, float alpha, float limit) {
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  return (up + 1.0f) * gate * sigmoid_approx(alpha * gate);
}

}  // namespace
}  // namespace trimoe::cpu
