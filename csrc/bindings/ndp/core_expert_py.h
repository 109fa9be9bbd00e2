// The shape of an expert that an NDP core computes, as Python gives it.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/cpu/activation_py.h"
#include "common/names.h"
#include "ndp/core/core.h"

namespace trimoe::ndp {

struct CoreExpertShape {
  ExpertShape shape;
  Number number;
};

inline Number number_named(const std::string& name) {
  return static_cast<Number>(index_of(kNumberNames, name, "weights"));
}

inline CoreExpertShape make_core_shape(int64_t hidden, int64_t inter, const std::string& number,
                                       int32_t group, const std::string& activation, bool gated, bool bias,
                                       float alpha, float limit) {
  const Number type = number_named(number);
  const CoreExpertShape made{{hidden,
                              inter,
                              {packed_format(type), group},
                              {activation_named(activation), gated, alpha, limit},
                              bias},
                             type};
  validate(made.shape, type);
  return made;
}

}  // namespace trimoe::ndp
