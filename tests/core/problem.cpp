#include "problem.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "common/convert.h"
#include "packed.h"
#include "packed/pack/pack.h"

namespace trimoe::test {
namespace {

std::vector<float> random_values(int64_t count, double scale, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<size_t>(count));
  // Not a distribution of the library: those give other values elsewhere.
  for (float& value : values) value = static_cast<float>((generator() * 0x1p-31 - 1) * scale);
  return values;
}

template <typename T>
void convert(const std::vector<float>& values, std::byte* to) {
  for (size_t i = 0; i < values.size(); ++i) {
    const T element = from_f32<T>(values[i]);
    std::memcpy(to + i * sizeof(T), &element, sizeof(T));
  }
}

float element(DType dtype, const std::byte* data, int64_t index) {
  if (dtype == DType::kF32) return at<float>(data, index);
  return dtype == DType::kBf16 ? to_f32(at<Bf16>(data, index)) : to_f32(at<F16>(data, index));
}

// A row as the format multiplies it: in 8 bits with a scale, in bf16, or as it is.
void round_row(const LayerShape& shape, double* row, int64_t count) {
  const Format format = shape.weights.format;
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(static_cast<float>(row[i])));
  const float inverse = largest < 1e-35f ? 0.0f : 127.0f / largest;
  for (int64_t i = 0; i < count && format != Format::kF32; ++i) {
    const auto value = static_cast<float>(row[i]);
    row[i] = shape.int8_activations ? std::nearbyint(value * inverse) * double{largest / 127.0f}
                                    : double{round_to_bf16(value)};
  }
}

double activate(const ActivationSpec& spec, double gate, double up) {
  const double x = spec.gated ? gate : up;
  const double factor = spec.gated ? up : 1;
  switch (spec.kind) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x)) * factor;
    case Activation::kGelu:
      return x * 0.5 * (1 + std::erf(x * std::sqrt(0.5))) * factor;
    case Activation::kGeluTanh:
      return x * 0.5 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))) * factor;
    case Activation::kRelu2:
      return std::pow(std::max(x, 0.0), 2) * factor;
    case Activation::kSwigluOai: {
      const double g = std::min<double>(gate, spec.limit);
      return (std::clamp<double>(up, -spec.limit, spec.limit) + 1) * g / (1 + std::exp(-spec.alpha * g));
    }
  }
  return 0;
}

// W row + bias for output `column` of the matrix that lies at `packed`.
double product(const LayerShape& shape, const PackedMatrix& matrix, const std::byte* packed,
               const std::byte* bias, int64_t panel, int64_t column, const double* x, int64_t k) {
  const std::byte* data = packed + panel * matrix.panel_bytes();
  double sum = shape.bias ? at<float>(bias, panel * kPanelCols + column) : 0;
  for (int64_t i = 0; i < k; ++i) sum += weight_at(shape.weights, matrix, data, column, i) * x[i];
  return sum;
}

std::vector<int64_t> choose(const Case& c) {
  std::mt19937 generator(7);
  std::vector<int64_t> ids;
  for (int64_t token = 0; token < c.tokens; ++token)
    for (int64_t slot = 0; slot < c.topk; ++slot) {
      const auto random = static_cast<int64_t>(generator());
      int64_t id = (random % c.experts + slot) % c.experts;
      if (c.routes == Routes::kOneExpert) id = c.experts - 1;
      if (c.routes == Routes::kSomeOutside && random % 3 == 0) id = random % 2 ? -1 : c.experts;
      // Expert e gets e + 1 tokens, so that every height of a register tile occurs.
      if (c.routes == Routes::kRamp) id = static_cast<int64_t>((std::sqrt(8.0 * double(token) + 1) - 1) / 2);
      ids.push_back(id);
    }
  return ids;
}

}  // namespace

Problem::Problem(const Case& c, const Variant& variant)
    : case_(c),
      shape_{{c.hidden, c.inter, variant.weights, {c.activation, c.gated}, c.bias},
             c.experts,
             variant.int8_activations},
      hidden_(static_cast<size_t>(c.tokens * c.hidden * size_of(c.dtype))),
      ids_(choose(c)),
      weights_(random_values(c.tokens * c.topk, 0.5, 2)) {
  shape_.validate();
  for (float& weight : weights_) weight += 0.6f;  // positive: experts that cancel out would enlarge errors
  // On the heap and no byte too many, so that a sanitizer sees what reads beyond.
  const auto bytes = static_cast<size_t>(shape_.layer_bytes());
  const std::shared_ptr<void> memory(std::aligned_alloc(kLineBytes, bytes), std::free);
  auto* experts = static_cast<std::byte*>(memory.get());
  for (int64_t expert = 0; expert < c.experts; ++expert)
    pack(expert, experts + expert * shape_.expert_bytes());
  layer_ = std::make_shared<Layer>(shape_, experts, memory);
  const std::vector<float> x = random_values(c.tokens * c.hidden, 2, 1);
  if (c.dtype == DType::kF32) convert<float>(x, hidden_.data());
  if (c.dtype == DType::kBf16) convert<Bf16>(x, hidden_.data());
  if (c.dtype == DType::kF16) convert<F16>(x, hidden_.data());
}

void Problem::pack(int64_t expert, std::byte* to) const {
  std::vector<std::vector<float>> owned;
  const auto part = [&](int64_t rows, int64_t cols, double scale) {
    owned.push_back(random_values(rows * cols, scale, static_cast<uint32_t>(expert * 8 + std::ssize(owned))));
    SourceView view;
    static_cast<SourceArray&>(view) = {owned.back().data(), SourceType::kF32, rows, cols, cols, 1};
    return view;
  };
  const int64_t h = case_.hidden, i = case_.inter;
  ExpertSource source;
  if (case_.gated) source.gate = part(i, h, 4 / std::sqrt(double(h)));
  source.up = part(i, h, 2 / std::sqrt(double(h)));
  source.down = part(h, i, 2 / std::sqrt(double(i)));
  if (case_.bias) {
    if (case_.gated) source.gate_bias = part(i, 1, 0.5);
    source.up_bias = part(i, 1, 0.5);
    source.down_bias = part(h, 1, 0.5);
  }
  pack_expert(shape_, source, to);
}

std::vector<double> Problem::add_expert(int64_t expert, const std::vector<double>& x) const {
  const PackedMatrix gate_up = shape_.gate_up(), down = shape_.down();
  const std::byte* packed = layer_->expert(expert);
  const std::byte* bias = packed + shape_.gate_up_bias_offset();
  std::vector<double> h(static_cast<size_t>(case_.inter)), y(static_cast<size_t>(case_.hidden));
  for (int64_t i = 0; i < case_.inter; ++i) {
    const int64_t panel = i / shape_.panel_width(), column = i % shape_.panel_width();
    const auto output = [&](int64_t tile) {
      return product(shape_, gate_up, packed, bias, panel, column + tile * kTileCols, x.data(), case_.hidden);
    };
    const double gate = case_.gated ? output(0) : 0;
    const double value = activate(shape_.activation, gate, output(case_.gated ? 1 : 0));
    const bool exact = shape_.weights.format == Format::kF32;
    h[static_cast<size_t>(i)] = exact ? value : double{round_to_bf16(static_cast<float>(value))};
  }
  round_row(shape_, h.data(), case_.inter);
  for (int64_t column = 0; column < case_.hidden; ++column)
    y[static_cast<size_t>(column)] =
        product(shape_, down, packed + shape_.down_offset(), packed + shape_.down_bias_offset(),
                column / kPanelCols, column % kPanelCols, h.data(), case_.inter);
  return y;
}

std::vector<double> Problem::exact() const {
  std::vector<double> out(static_cast<size_t>(case_.tokens * case_.hidden));
  for (int64_t token = 0; token < case_.tokens; ++token) {
    std::vector<double> x(static_cast<size_t>(case_.hidden));
    for (int64_t k = 0; k < case_.hidden; ++k)
      x[static_cast<size_t>(k)] = element(case_.dtype, hidden_.data(), token * case_.hidden + k);
    round_row(shape_, x.data(), case_.hidden);
    for (int64_t slot = 0; slot < case_.topk; ++slot) {
      const auto pair = static_cast<size_t>(token * case_.topk + slot);
      if (ids_[pair] < 0 || ids_[pair] >= case_.experts) continue;
      const std::vector<double> y = add_expert(ids_[pair], x);
      for (size_t k = 0; k < y.size(); ++k)
        out[static_cast<size_t>(token * case_.hidden) + k] += double{weights_[pair]} * y[k];
    }
  }
  return out;
}

std::vector<float> Problem::run(const cpu::TableEntry& entry, const ThreadPool& pool) const {
  std::vector<std::byte> out(hidden_.size(), std::byte{0xff});
  const Kernel& kernel = entry.kernel(shape_.weights.format, shape_.int8_activations);
  cpu::expert_ffn(*layer_, kernel, pool, rows(), router(), case_.tokens, out.data());
  return as_floats(out);
}

std::vector<float> Problem::run(const runtime::OpenLayer& layer, const ThreadPool& pool,
                                const std::vector<int32_t>& plan) const {
  std::vector<std::byte> out(hidden_.size(), std::byte{0xff});
  const Kernel& kernel = cpu::selected_entry().kernel(shape_.weights.format, shape_.int8_activations);
  runtime::forward(layer, kernel, pool, {rows(), router(), case_.tokens, out.data(), plan});
  return as_floats(out);
}

cpu::RouterOutput Problem::router() const {
  const int64_t k = case_.topk;
  return {ids_.data(), true, k, 1, weights_.data(), DType::kF32, k, 1, k};
}

RowSource Problem::rows() const { return {hidden_.data(), case_.dtype, case_.hidden, 1, case_.hidden}; }

std::vector<float> Problem::as_floats(const std::vector<std::byte>& out) const {
  std::vector<float> result(static_cast<size_t>(case_.tokens * case_.hidden));
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = element(case_.dtype, out.data(), static_cast<int64_t>(i));
  return result;
}

double relative_error(const std::vector<float>& result, const std::vector<double>& exact) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    difference += std::pow(result[i] - exact[i], 2);
    size += std::pow(exact[i], 2);
  }
  return std::sqrt(size > 0 ? difference / size : difference);
}

}  // namespace trimoe::test
