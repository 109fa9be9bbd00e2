// A policy as Python gives it: a plan for every call, or who is asked.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pybind11/numpy.h>

#include "bindings/cpu/keep_py.h"
#include "runtime/policy.h"

namespace trimoe::runtime {

// Throws Error for what is no array of integers of that length.
inline std::vector<int32_t> plan_of(const pybind11::object& given, int64_t experts) {
  namespace py = pybind11;
  const char* const expected = "a plan of shape [E] of integers";
  const char* const hint = "np.zeros(E, np.int32), the CPU for all";
  const auto any = py::array::ensure(given);
  PyErr_Clear();
  const bool is_plan = any && any.ndim() == 1 && (any.dtype().kind() == 'i' || any.dtype().kind() == 'u');
  check(
      is_plan && any.shape(0) == experts, expected,
      [&] {
        const std::string type(py::str(py::type::of(given).attr("__name__")));
        return is_plan ? std::to_string(any.shape(0)) + " for " + std::to_string(experts) + " experts" : type;
      },
      hint);
  const auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast>(any);
  std::vector<int32_t> plan;
  for (py::ssize_t i = 0; i < wide.size(); ++i) {
    const int64_t code = wide.data()[i];
    check(std::in_range<int32_t>(code), expected, code, hint);
    plan.push_back(static_cast<int32_t>(code));
  }
  return plan;
}

class PythonPolicy final : public Policy {
 public:
  explicit PythonPolicy(pybind11::object callable) : callable_(keep(std::move(callable))) {}

  void plan(const Question& question, std::span<int32_t> domains) override {
    namespace py = pybind11;
    const py::gil_scoped_acquire locked;
    try {
      const auto& ask = *static_cast<const py::object*>(callable_.get());
      const py::array_t<int64_t> counts(std::ssize(question.counts), question.counts.data());
      const py::object answer = ask(counts, question.tokens, question.topk);
      std::ranges::copy(plan_of(answer, std::ssize(domains)), domains.begin());
    } catch (py::error_already_set& error) {
      const std::string what(py::str(error.value())), type(py::str(error.type().attr("__name__")));
      if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
      throw PolicyError(type + ": " + what, keep(py::object(error.value())));
    }
  }

 private:
  std::shared_ptr<void> callable_;
};

// Null for None.
inline std::shared_ptr<Policy> policy_of(const pybind11::object& given, int64_t experts) {
  if (given.is_none()) return nullptr;
  if (PyCallable_Check(given.ptr())) return std::make_shared<PythonPolicy>(given);
  return std::make_shared<FixedPlan>(plan_of(given, experts));
}

}  // namespace trimoe::runtime
