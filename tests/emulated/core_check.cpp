// The core on another processor: one small layer by the entry it chooses, against loops in double.
#include <cmath>
#include <cstdio>
#include <vector>

#include "common/own_threads.h"
#include "cpu/expert_ffn.h"
#include "cpu/kernel_table.h"
#include "cpu/pack.h"

using namespace trimoe;
using namespace trimoe::cpu;

namespace {

constexpr int kExperts = 3, kHidden = 37, kInter = 29, kTokens = 5, kTopk = 2;

std::vector<float> random_values(int count) {
  static uint32_t state = 1;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 9) / 8388608.0f - 0.5f;
  }
  return values;
}

double exact(const std::vector<float>& gate, const std::vector<float>& up, const std::vector<float>& down,
             const float* x, int h) {
  double sum = 0;
  for (int i = 0; i < kInter; ++i) {
    double g = 0, u = 0;
    for (int k = 0; k < kHidden; ++k) {
      g += double{gate[i * kHidden + k]} * x[k];
      u += double{up[i * kHidden + k]} * x[k];
    }
    sum += down[h * kInter + i] * (g / (1 + std::exp(-g)) * u);
  }
  return sum;
}

}  // namespace

int main() {
  LayerShape shape;
  shape.experts = kExperts;
  shape.hidden = kHidden;
  shape.inter = kInter;
  shape.weights = DType::kF32;
  shape.validate();
  Layer layer(shape);
  std::vector<std::vector<float>> gate, up, down;
  for (int e = 0; e < kExperts; ++e) {
    gate.push_back(random_values(kInter * kHidden));
    up.push_back(random_values(kInter * kHidden));
    down.push_back(random_values(kHidden * kInter));
    const ExpertSource source{{gate[e].data(), DType::kF32, kInter, kHidden, kHidden, 1},
                              {up[e].data(), DType::kF32, kInter, kHidden, kHidden, 1},
                              {down[e].data(), DType::kF32, kHidden, kInter, kInter, 1},
                              {}, {}, {}};
    pack_expert(shape, source, layer.mutable_expert(e));
  }
  const std::vector<float> x = random_values(kTokens * kHidden), weights = random_values(kTokens * kTopk);
  const int64_t ids[kTokens * kTopk] = {0, 1, 2, 0, 1, 2, -1, 0, 2, 3};
  std::vector<float> out(kTokens * kHidden);
  const RouterOutput router{ids, true, kTopk, 1, weights.data(), DType::kF32, kTopk, 1, kTopk};
  const RowSource rows{x.data(), DType::kF32, kHidden, 1, kHidden};
  expert_ffn(layer, selected_entry().kernel(DType::kF32), OwnThreads(2), {rows, router, kTokens, out.data()});

  double worst = 0;
  for (int t = 0; t < kTokens; ++t)
    for (int h = 0; h < kHidden; ++h) {
      double sum = 0;
      for (int k = 0; k < kTopk; ++k) {
        const int64_t e = ids[t * kTopk + k];
        if (e >= 0 && e < kExperts) sum += weights[t * kTopk + k] * exact(gate[e], up[e], down[e], &x[t * kHidden], h);
      }
      worst = std::fmax(worst, std::fabs(sum - out[t * kHidden + h]));
    }
  std::printf("%s, entry %s: largest error %.1e\n", features().arch.c_str(), selected_entry().isa, worst);
  return worst < 1e-5 ? 0 : 1;
}
