// Activations by the names that Python has for them.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "common/names.h"
#include "packed/activation.h"

namespace trimoe {

inline Activation activation_named(const std::string& name) {
  static constexpr std::array<std::string_view, 5> kNames = {"silu", "gelu", "gelu_tanh", "relu2",
                                                             "swiglu_oai"};
  return static_cast<Activation>(index_of(kNames, name, "an activation"));
}

}  // namespace trimoe
