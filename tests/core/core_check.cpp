// Every entry of the kernel table that this processor can run, on every format: against loops in double,
// against "ref", and that the number of threads changes no bit.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>

#include "common/own_threads.h"
#include "problem.h"

using namespace trimoe;
using namespace trimoe::test;

namespace {

constexpr Case kCases[] = {
    {"plain", 7, 64, 48, 5, 2},
    {"smallest", 2, 1, 1, 1, 1},
    {"no tokens", 0, 20, 20, 2, 2},
    {"odd sizes", 13, 37, 29, 3, 2, Activation::kSilu, true, true, Routes::kSomeOutside},
    {"beyond a tile", 11, 129, 33, 2, 2, Activation::kGelu, true, false, Routes::kRandom, DType::kF16},
    {"many panels", 3, 290, 210, 4, 2, Activation::kGeluTanh, true, false, Routes::kRandom, DType::kBf16},
    {"one hot expert", 140, 40, 24, 3, 1, Activation::kSilu, true, false, Routes::kOneExpert},
    {"rows 1 to 12", 78, 70, 20, 12, 1, Activation::kRelu2, false, true, Routes::kRamp},
    {"gpt-oss", 30, 72, 40, 4, 2, Activation::kSwigluOai, true, true},
};

constexpr Variant kVariants[] = {
    {"fp32", Format::kF32, false},
    {"bf16", Format::kBf16, false},
    {"int8", Format::kInt8, true},
    {"int4", Format::kInt4, true},
    {"int4 g32", {Format::kInt4, 32}, true},
    {"int4 a16", Format::kInt4, false},
    {"int4 g64 a16", {Format::kInt4, 64}, false},
    {"fp8", Format::kFp8, false},
    {"mxfp4", Format::kMxfp4, false},
};

// As tests/cpu/test_kernels.py has it, and why.
double tolerance(const Variant& variant, DType dtype) {
  const bool exact = variant.weights.format == Format::kF32;
  return (exact                      ? 3e-6
          : variant.int8_activations ? 2e-3
                                     : 1e-4) +
         (dtype == DType::kBf16  ? 4e-3
          : dtype == DType::kF16 ? 5e-4
                                 : 0);
}

int failures = 0;
int checks = 0;

void expect(bool ok, const std::string& what, double figure) {
  ++checks;
  if (ok) return;
  ++failures;
  std::printf("FAIL %s: %.2e\n", what.c_str(), figure);
}

void check_entry(const cpu::TableEntry& entry, const Problem& problem, const Case& c, const Variant& variant,
                 const std::vector<double>& exact, const std::vector<double>& ref, double& worst) {
  const std::string what = std::string(entry.isa) + ", " + variant.name + ", " + c.name;
  const double limit = tolerance(variant, c.dtype);
  const std::vector<float> alone = problem.run(entry, OwnThreads(1));
  const double error = relative_error(alone, exact), other = relative_error(alone, ref);
  expect(error <= limit, what + ": error", error);
  expect(other <= limit, what + ": difference to ref", other);
  if (c.dtype == DType::kF32) worst = std::max(worst, error);
  for (int threads : {2, 5})
    expect(problem.run(entry, OwnThreads(threads)) == alone, what + ": other bits by threads", threads);
}

}  // namespace

int main() {
  const auto& table = cpu::kernel_table();
  for (const Variant& variant : kVariants) {
    std::map<std::string, double> worst;
    for (const Case& c : kCases) {
      const Problem problem(c, variant);
      const std::vector<double> exact = problem.exact();
      const std::vector<float> by_ref = problem.run(table.back(), OwnThreads(1));
      const std::vector<double> ref(by_ref.begin(), by_ref.end());
      for (const cpu::TableEntry& entry : table)
        if (entry.supported()) check_entry(entry, problem, c, variant, exact, ref, worst[entry.isa]);
    }
    std::printf("%-12s", variant.name);
    for (const auto& [isa, error] : worst) std::printf("  %s %.1e", isa.c_str(), error);
    std::printf("\n");
  }
  std::printf("%s, chosen entry %s: %d checks, %d failures\n", cpu::features().arch.c_str(),
              cpu::selected_entry().isa, checks, failures);
  return failures ? 1 : 0;
}
