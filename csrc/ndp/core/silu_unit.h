// The activations as the core computes them: in double, rounded to fp32 once.
//
// libms differ in the last bit of exp; text of additions, multiplications and divisions alone gives the same
// bits on every machine. There is one activation for thousands of products, so that double costs nothing.
#pragma once

#include <algorithm>
#include <array>
#include <bit>

#include "packed/activation.h"

namespace trimoe::ndp {

namespace silu_unit {

inline constexpr auto kInverseFactorials = [] {
  std::array<double, 12> inverse{1.0};
  for (size_t n = 1; n < inverse.size(); ++n) inverse[n] = inverse[n - 1] / static_cast<double>(n);
  return inverse;
}();

// exp(x) = 2^n * exp(r), r in [-ln2/2, ln2/2], Taylor to degree 11: relative error below 2e-13. Infinity from
// 710 on, exp(-708) at least; NaN stays NaN.
inline double exp(double x) {
  x = x > 710.0 ? 710.0 : x < -708.0 ? -708.0 : x;
  constexpr double kToInteger = 0x1.8p52;  // added, rounds to an integer in the low bits
  const double shifted = x * 1.4426950408889634 + kToInteger;
  const double r = x - (shifted - kToInteger) * 0.6931471805599453;
  double p = 0.0;
  for (size_t n = kInverseFactorials.size(); n-- > 0;) p = p * r + kInverseFactorials[n];
  // 2^n as 2^(n - 1) * 2, so that n = 1024 does not wrap the exponent.
  return p * std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1022) << 52) * 2.0;
}

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
inline double erf(double x) {
  const double z = x < 0.0 ? -x : x;
  const double t = 1.0 / (1.0 + 0.3275911 * z);
  double p = 1.061405429;
  for (const double c : {-1.453152027, 1.421413741, -0.284496736, 0.254829592}) p = p * t + c;
  const double value = 1.0 - p * t * exp(-z * z);
  return x < 0.0 ? -value : value;
}

inline double act(Activation kind, double x) {
  switch (kind) {
    case Activation::kSilu:
      return x / (1.0 + exp(-x));
    case Activation::kGelu:
      return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
    case Activation::kGeluTanh:  // (1 + tanh(y)) / 2 = 1 / (1 + exp(-2y)), y = sqrt(2 / pi) (x + ...)
      return x / (1.0 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
    case Activation::kRelu2:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::kSwigluOai:
      break;  // not a function of one value
  }
  return 0.0;
}

}  // namespace silu_unit

// h of one element; without a gate, `gate` is what the matrix yields and `up` is not read.
inline float activation(const ActivationSpec& spec, float gate, float up) {
  if (spec.kind != Activation::kSwigluOai)
    return static_cast<float>(silu_unit::act(spec.kind, gate) * (spec.gated ? up : 1.0));
  const double g = std::min(gate, spec.limit), u = std::clamp(up, -spec.limit, spec.limit);
  return static_cast<float>((u + 1.0) * g / (1.0 + silu_unit::exp(-spec.alpha * g)));
}

}  // namespace trimoe::ndp
