// Activations by the names that Python has for them.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "common/error.h"
#include "packed/activation.h"

namespace trimoe {

inline Activation activation_named(const std::string& name) {
  static constexpr std::array<std::string_view, 5> kNames = {"silu", "gelu", "gelu_tanh", "relu2",
                                                             "swiglu_oai"};
  for (size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<Activation>(i);
  throw Error("activation silu, gelu, gelu_tanh, relu2 or swiglu_oai", name, "one of the five");
}

}  // namespace trimoe
