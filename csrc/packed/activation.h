// The activation variants of the experts. h = act(gate) * up, or act(up) when there is no gate.
#pragma once

#include <cstdint>

namespace trimoe {

enum class Activation : int32_t {
  kSilu = 0,      // x * sigmoid(x)
  kGelu = 1,      // x * Phi(x), by erf
  kGeluTanh = 2,  // the tanh approximation of kGelu
  kRelu2 = 3,     // max(x, 0)^2 (Nemotron-H, which has no gate)
  kSwigluOai = 4  // gpt-oss: g = min(gate, limit), u = clamp(up, +-limit): (u + 1) g sigmoid(alpha g)
};

struct ActivationSpec {
  Activation kind = Activation::kSilu;
  bool gated = true;
  float alpha = 1.702f;  // kSwigluOai only
  float limit = 7.0f;    // kSwigluOai only
};

}  // namespace trimoe
