// What threads of a caller may do at once, for the thread sanitizer: call one layer and others, pack experts
// of one layer, register, close and look at layers. And what they should not, but may: write to the ids of a
// call.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "common/error.h"
#include "common/own_threads.h"
#include "packed/pack/pack.h"
#include "problem.h"
#include "runtime/layer.h"

using namespace trimoe;
using namespace trimoe::test;

namespace {

constexpr int kThreads = 4, kTimes = 6;
// Large enough that a call shares its work among threads.
constexpr Case kCase{"race", 48, 128, 96, 6, 2};

template <typename Body>
void at_once(const Body& body) {
  std::vector<std::jthread> threads;
  for (int index = 0; index < kThreads; ++index)
    threads.emplace_back([&body, index] {
      for (int time = 0; time < kTimes; ++time) body(index);
    });
}

int call_layers(const Variant& variant) {
  const Problem shared(kCase, variant);
  std::atomic<int> wrong{0};
  for (const cpu::TableEntry& entry : cpu::kernel_table()) {
    if (!entry.supported()) continue;
    const std::vector<float> expected = shared.run(entry, OwnThreads(1));
    at_once([&](int index) {
      if (index == 0) shared.layer().reset_stats();
      wrong += shared.run(entry, OwnThreads(2)) != expected;
      wrong += shared.layer().stats.calls.load() < 0;
    });
  }
  return wrong;
}

int pack_experts(WeightFormat weights) {
  LayerShape shape;
  shape.experts = kThreads;
  shape.hidden = 64;
  shape.inter = 32;
  shape.weights = weights;
  shape.int8_activations = weights.format == Format::kInt8 || weights.format == Format::kInt4;
  Layer layer(shape);
  const std::vector<float> values(static_cast<size_t>(shape.hidden * shape.inter), 0.5f);
  ExpertSource source;
  const auto matrix = [&](int64_t rows, int64_t cols) {
    return SourceView{{values.data(), SourceType::kF32, rows, cols, cols, 1}, {}};
  };
  source.gate = source.up = matrix(shape.inter, shape.hidden);
  source.down = matrix(shape.hidden, shape.inter);
  at_once([&](int index) { pack_expert(shape, source, layer.mutable_expert(index)); });
  int wrong = 0;
  for (int64_t expert = 1; expert < shape.experts; ++expert)
    wrong += !std::equal(layer.expert(0), layer.expert(1), layer.expert(expert));
  return wrong;
}

int open_and_close() {
  LayerShape shape;
  shape.experts = shape.hidden = shape.inter = 1;
  std::atomic<int> wrong{0};
  at_once([&](int) {
    const int64_t handle = runtime::register_layer(std::make_shared<Layer>(shape));
    wrong += runtime::find_layer(handle).packed->shape().experts != 1;
    runtime::unregister_layer(handle);
    try {
      runtime::find_layer(handle);
      ++wrong;
    } catch (const Error&) {  // closed, as it should be
    }
  });
  return wrong;
}

// Whatever the ids become meanwhile, rows are written where they were counted: the address sanitizer sees the
// rest.
int change_ids() {
  constexpr int64_t kTokens = 512, kTopk = 4, kExperts = 8;
  std::vector<int64_t> ids(kTokens * kTopk);
  const std::vector<float> weights(ids.size(), 1.0f);
  const cpu::RouterOutput router{ids.data(), true, kTopk, 1, weights.data(), DType::kF32, kTopk, 1, kTopk};
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::jthread writer([&] {
    for (int64_t value = 0; !done; value = (value + 5) % (kExperts + 2))
      for (int64_t& id : ids) __atomic_store_n(&id, value - 1, __ATOMIC_RELAXED);
  });
  at_once([&](int) {
    for (int time = 0; time < 200; ++time) {
      cpu::Routing routing;  // whose buffers are as large as they need to be
      routing.assign(router, kTokens, kExperts);
      int64_t rows = 0;
      for (const auto& expert : routing.active) rows += expert.end - expert.begin;
      wrong += rows != std::ssize(routing.tokens) ||
               std::ranges::any_of(routing.weights, [](float w) { return w != 1; });
    }
  });
  done = true;
  return wrong;
}

}  // namespace

int main() {
  int wrong = open_and_close() + change_ids();
  for (Format format : {Format::kF32, Format::kInt8, Format::kInt4, Format::kFp8, Format::kMxfp4})
    wrong += pack_experts(format);
  wrong += call_layers({"bf16", Format::kBf16, false}) + call_layers({"int4", Format::kInt4, true});
  std::printf("%d threads at once: %d wrong\n", kThreads, wrong);
  return wrong ? 1 : 0;
}
