#include "packed/layer.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "packed/shard.h"

namespace trimoe {
namespace {

constexpr int64_t kMaxDim = int64_t{1} << 20;
constexpr int64_t kMaxLayerBytes = int64_t{1} << 46;
constexpr int64_t kMaxInt8K = int64_t{1} << 16;

}  // namespace

void LayerShape::validate() const {
  const auto in_range = [](int64_t value) { return value >= 1 && value <= kMaxDim; };
  check(in_range(experts), "1 to 2^20 experts", experts, "the expert count of the model's config");
  check(in_range(hidden), "a hidden size of 1 to 2^20", hidden, "the hidden_size of the model's config");
  check(in_range(inter), "an expert intermediate size of 1 to 2^20", inter,
        "the moe_intermediate_size of the config");
  check(weights.format != Format::kInt4 || weights.group == 32 || weights.group == 64 || weights.group == 128,
        "int4 groups of 32, 64 or 128", weights.group, "128");
  check(weights.format == Format::kInt4 || weights.group == facts(weights.format).default_group,
        "a group size for int4 only", weights.group, "leaving it out");
  check(weights.format == Format::kInt4 || int8_activations == (weights.format == Format::kInt8),
        "a choice of activations for int4 only", int8_activations ? "int8" : "bf16", "leaving it out");
  // Sums of products of 8-bit codes must fit 32 bits.
  check(!int8_activations || (hidden <= kMaxInt8K && inter <= kMaxInt8K),
        "a hidden and intermediate size of at most 2^16 with int8 activations", std::max(hidden, inter),
        "bf16 weights");
  // Far beyond any memory, and far below an overflow of layer_bytes().
  check(
      experts <= kMaxLayerBytes / expert_bytes(), "a layer of at most 2^46 packed bytes",
      [&] { return std::to_string(experts) + " experts of " + std::to_string(expert_bytes()); },
      "the sizes of the model's config");
  check(activation.gated || activation.kind != Activation::kSwigluOai, "a gate for swiglu_oai", "no gate",
        "another activation, or gated=True");
}

Layer::Layer(const LayerShape& shape)
    : expert_rows(static_cast<size_t>(shape.experts)),
      shape_(shape),
      owned_(static_cast<size_t>(shape.layer_bytes())),
      data_(owned_.data()) {
  place_experts(shape_, data_, Placing::kFresh);
}

Layer::Layer(const LayerShape& shape, const std::byte* data, std::shared_ptr<void> owner)
    : expert_rows(static_cast<size_t>(shape.experts)), shape_(shape), owner_(std::move(owner)), data_(data) {
  check(reinterpret_cast<uintptr_t>(data) % kLineBytes == 0, "packed experts aligned to 64 bytes",
        "an unaligned address", "mapping the packed file at a page boundary");
  place_experts(shape_, data_, Placing::kMapped);
}

std::byte* Layer::mutable_expert(int64_t index) {
  check(owned_.data() != nullptr, "a layer that owns its memory", "a read-only mapped layer",
        "packing into a new layer");
  check(index >= 0 && index < shape_.experts, "an expert index below the expert count", index, "0 to E - 1");
  return owned_.data() + index * shape_.expert_bytes();
}

void Layer::reset_stats() {
  for (auto* counter : {&stats.calls, &stats.tokens, &stats.rows, &stats.experts_loaded, &stats.weight_bytes,
                        &stats.flops, &stats.busy_ns})
    counter->store(0, std::memory_order_relaxed);
  for (auto& rows : expert_rows) rows.store(0, std::memory_order_relaxed);
}

}  // namespace trimoe
