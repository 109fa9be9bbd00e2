// Random weights and rows in the layouts that the kernels take, and a pool of threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/memory.h"
#include "common/parallel.h"
#include "packed/layer.h"

namespace trimoe::bench {

// A weight format as benchmarks name it.
struct Variant {
  std::string name;
  WeightFormat weights;
  bool int8_rows;
};
const std::vector<Variant>& variants();

std::vector<float> random_values(int64_t count);

// A layer whose experts all have the same random weights; gated, SiLU.
std::unique_ptr<Layer> random_layer(int64_t experts, int64_t hidden, int64_t inter, const Variant& variant);

// One matrix of so many panels of random weights, the same few over and over, and rows that fit it.
struct PackedGemm {
  PackedGemm(const Variant& variant, const Kernel& kernel, int64_t rows, int64_t k, int64_t panels);

  PackedMatrix matrix;
  int64_t a_stride;
  PageBuffer weights, a;
};

// As torch's: one OpenMP team that stays.
class OpenMpThreads final : public ThreadPool {
 public:
  explicit OpenMpThreads(int threads) : threads_(threads) {}
  int max_workers() const override { return threads_; }
  void run(int workers, void (*body)(void*, int), void* context) const override;

 private:
  int threads_;
};

}  // namespace trimoe::bench
