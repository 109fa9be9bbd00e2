// A layer of random weights with a router's choice, and its exact result by loops in double.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/dispatch/kernel_table.h"
#include "cpu/ffn/expert_ffn.h"
#include "runtime/forward.h"

namespace trimoe::test {

enum class Routes { kRandom, kOneExpert, kSomeOutside, kRamp };

struct Case {
  const char* name;
  int64_t tokens, hidden, inter, experts, topk;
  Activation activation = Activation::kSilu;
  bool gated = true, bias = false;
  Routes routes = Routes::kRandom;
  DType dtype = DType::kF32;  // of hidden and of the result
};

struct Variant {  // of a format
  const char* name;
  WeightFormat weights;
  bool int8_activations;
};

class Problem {
 public:
  Problem(const Case& c, const Variant& variant);

  Layer& layer() const { return *layer_; }
  const std::shared_ptr<Layer>& shared_layer() const { return layer_; }
  // [tokens, hidden], from the packed weights with the roundings that the format prescribes.
  std::vector<double> exact() const;
  // The same by a kernel, converted to fp32.
  std::vector<float> run(const cpu::TableEntry& entry, const ThreadPool& pool) const;
  // The same by the executor, on the layer's domains.
  std::vector<float> run(const runtime::OpenLayer& layer, const ThreadPool& pool,
                         const std::vector<int32_t>& plan) const;

 private:
  cpu::RouterOutput router() const;
  RowSource rows() const;
  std::vector<float> as_floats(const std::vector<std::byte>& out) const;
  void pack(int64_t expert, std::byte* to) const;
  std::vector<double> add_expert(int64_t expert, const std::vector<double>& x) const;

  Case case_;
  LayerShape shape_;
  std::shared_ptr<Layer> layer_;
  std::vector<std::byte> hidden_;  // [tokens, H] of the case's dtype
  std::vector<int64_t> ids_;       // [tokens, K]
  std::vector<float> weights_;     // [tokens, K]
};

// Relative Frobenius error; the difference itself where the exact result is zero.
double relative_error(const std::vector<float>& result, const std::vector<double>& exact);

}  // namespace trimoe::test
