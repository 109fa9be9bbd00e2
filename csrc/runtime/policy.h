// Who decides, at every call that brings no plan, which domain runs which expert.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/error.h"

namespace trimoe::runtime {

struct Question {
  int64_t layer;                    // the op's handle
  std::span<const int64_t> counts;  // [E] rows of each expert
  int64_t tokens, topk;
};

class Policy {
 public:
  Policy() = default;
  virtual ~Policy() = default;
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  // domains [E]: in, active experts on the CPU and the others idle; out, the plan. Any thread may ask,
  // several at once. What it throws is the caller's of the op, as it is.
  virtual void plan(const Question& question, std::span<int32_t> domains) = 0;
};

// The same plan for every call.
class FixedPlan final : public Policy {
 public:
  explicit FixedPlan(std::vector<int32_t> domains) : domains_(std::move(domains)) {}
  void plan(const Question&, std::span<int32_t> domains) override {
    std::copy(domains_.begin(), domains_.end(), domains.begin());
  }

 private:
  std::vector<int32_t> domains_;
};

// A policy that is not native has failed; `cause` is its own exception, for whoever knows what that is.
class PolicyError : public Failure {
 public:
  PolicyError(const std::string& what_came, std::shared_ptr<void> error)
      : Failure("a plan from the layer's policy", what_came), cause(std::move(error)) {}
  const std::shared_ptr<void> cause;
};

}  // namespace trimoe::runtime
