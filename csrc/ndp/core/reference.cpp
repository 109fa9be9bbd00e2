#include "ndp/core/reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>

namespace trimoe::ndp {
namespace {

constexpr double kFp32Rounding = 0x1p-24, kBf16Rounding = 0x1p-8;

// A number of one sign bit, then exponent, then mantissa; finite.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const auto mantissa = static_cast<int>(bits & ((1u << mantissa_bits) - 1));
  const int leading = exponent > 0 ? 1 << mantissa_bits : 0;
  const double magnitude = std::ldexp(leading + mantissa, std::max(exponent, 1) - bias - mantissa_bits);
  return bits >> (exponent_bits + mantissa_bits) & 1 ? -magnitude : magnitude;
}

double bf16_value(uint32_t bits) { return value_of(bits, 8, 7); }

template <typename T>
T at(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// One packed matrix, one weight at a time.
struct Weights {
  const std::byte* data;
  PackedMatrix matrix;
  WeightFormat format;
  Number number;

  double operator()(int64_t panel, int64_t column, int64_t k) const {
    const std::byte* base = data + panel * matrix.panel_bytes();
    const CodePlace place = code_place(format.format, column, k);
    const std::byte* code = base + place.byte;
    const int64_t group = format.group ? k / format.group : 0;
    const std::byte* scale = base + matrix.scales_offset() + group * group_scale_bytes(format.format);
    switch (number) {
      case Number::kBf16:
        return bf16_value(at<uint16_t>(code));
      case Number::kF16:
        return value_of(at<uint16_t>(code), 5, 10);
      case Number::kInt8:
        return (at<uint8_t>(code) - 128) * static_cast<double>(at<float>(scale + column * 4));
      case Number::kInt4:
        return ((at<uint8_t>(code) >> place.shift & 15) - 8) * bf16_value(at<uint16_t>(scale + column * 2));
    }
    return 0;
  }
};

// A value and how far off the core's may be.
struct Bounded {
  double value = 0, error = 0;
};

// One output column for all rows: w[k] against rows[t * w.size() + k].
void multiply_column(const std::vector<double>& w, const std::vector<Bounded>& rows, int64_t groups,
                     double bias, Bounded* out, int64_t out_stride) {
  // Each k adds once to its sum; beyond that there are group, leaf, tree, bias and router weight.
  const double n = static_cast<double>(std::ssize(w) + groups + 2 * kLeaves) * kFp32Rounding;
  for (size_t begin = 0; begin < rows.size(); begin += w.size(), out += out_stride) {
    double sum = bias, magnitude = std::abs(bias), carried = 0;
    for (size_t k = 0; k < w.size(); ++k) {
      const Bounded& x = rows[begin + k];
      sum += x.value * w[k];
      magnitude += (std::abs(x.value) + x.error) * std::abs(w[k]);
      carried += x.error * std::abs(w[k]);
    }
    *out = {sum, n / (1 - n) * magnitude + carried};
  }
}

double act(Activation kind, double x) {
  switch (kind) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x / 2 * (1 + std::erf(x / std::numbers::sqrt2));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu2:
      return x > 0 ? x * x : 0;
    case Activation::kSwigluOai:
      break;  // a function of two values
  }
  return 0;
}

// h of one element, as it leaves the core: rounded to bf16.
Bounded activated(const ActivationSpec& spec, Bounded gate, Bounded up) {
  Bounded first, second{1, 0};
  const double far = std::abs(gate.value) + gate.error;
  // x sigmoid(x) has slopes of at most 1.1, both gelus of 1.13. The core's erf is off by 1.5e-7.
  const double slope = spec.kind == Activation::kRelu2 ? 2 * far : 1.13;
  const double own = spec.kind == Activation::kGelu ? 0.75e-7 * far : 0;
  if (spec.kind == Activation::kSwigluOai) {
    const double alpha = spec.alpha, limit = spec.limit, g = std::min(gate.value, limit);
    first = {g / (1 + std::exp(-alpha * g)), slope * gate.error};
    second = {std::clamp(up.value, -limit, limit) + 1, up.error};
  } else {
    first = {act(spec.kind, gate.value), slope * gate.error + own};
    if (spec.gated) second = up;
  }
  const double h = first.value * second.value;
  const double error =
      first.error * (std::abs(second.value) + second.error) + std::abs(first.value) * second.error;
  return {h, error + (std::abs(h) + error) * (kFp32Rounding + kBf16Rounding)};
}

// Uniform draws; the distributions of the standard library differ between libraries.
class Draw {
 public:
  explicit Draw(uint64_t seed) : bits_(seed) {}
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>((bits_() >> 32) * limit >> 32); }
  double between(double low, double high) {
    return low + (high - low) * static_cast<double>(bits_() >> 11) * 0x1p-53;
  }

 private:
  std::mt19937_64 bits_;
};

template <typename T>
void put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

uint16_t bf16_bits(double value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(value)) >> 16);
}

// Either sign, magnitudes from 2^(top - 3) to below 2^(top + 1), of a 16-bit type.
uint16_t draw_code(Draw& draw, Number number, int top) {
  const int mantissa_bits = number == Number::kF16 ? 10 : 7, bias = number == Number::kF16 ? 15 : 127;
  const uint32_t exponent = static_cast<uint32_t>(bias + top - 3) + draw.below(4);
  const uint32_t mantissa = draw.below(1u << mantissa_bits);
  return static_cast<uint16_t>(draw.below(2) << 15 | exponent << mantissa_bits | mantissa);
}

void draw_matrix(Draw& draw, const PackedMatrix& matrix, Number number, int64_t k, std::byte* to) {
  const double size = 1 / std::sqrt(static_cast<double>(k));
  const int top = std::max(static_cast<int>(std::floor(std::log2(size))), -8);
  for (int64_t panel = 0; panel < matrix.panels; ++panel, to += matrix.panel_bytes()) {
    std::byte* const scales = to + matrix.scales_offset();
    if (number == Number::kBf16 || number == Number::kF16) {
      for (std::byte* code = to; code < scales; code += 2) put(code, draw_code(draw, number, top));
      continue;
    }
    for (std::byte* code = to; code < scales; ++code) put(code, static_cast<uint8_t>(draw.below(256)));
    for (int64_t i = 0; i < matrix.groups * kPanelCols; ++i) {
      const double scale = draw.between(0.5, 2.0) * size;
      if (number == Number::kInt8) put(scales + i * 4, static_cast<float>(scale / 128));
      if (number == Number::kInt4) put(scales + i * 2, bf16_bits(scale / 8));
    }
  }
}

}  // namespace

std::vector<std::byte> draw_expert(const ExpertShape& shape, Number number, uint64_t seed) {
  Draw draw(seed);
  std::vector<std::byte> expert(static_cast<size_t>(shape.expert_bytes()));
  draw_matrix(draw, shape.gate_up(), number, shape.hidden, expert.data());
  draw_matrix(draw, shape.down(), number, shape.inter, expert.data() + shape.down_offset());
  std::byte* const end = expert.data() + expert.size();
  for (std::byte* bias = expert.data() + shape.gate_up_bias_offset(); bias < end; bias += 4)
    put(bias, static_cast<float>(draw.between(-0.3, 0.3)));
  return expert;
}

std::vector<Bf16> draw_rows(int64_t count, uint64_t seed) {
  Draw draw(seed);
  std::vector<Bf16> rows(static_cast<size_t>(count));
  for (Bf16& x : rows) x.bits = draw_code(draw, Number::kBf16, 0);
  return rows;
}

ReferenceResult reference_ffn(const CoreExpert& expert, const Bf16* x, int64_t tokens, double scale) {
  const ExpertShape& shape = expert.shape;
  const int64_t H = shape.hidden, I = shape.inter;
  const auto run = [&](const Weights& weights, int64_t n, int64_t column, int64_t k, int64_t bias_offset,
                       const std::vector<Bounded>& rows, Bounded* out, int64_t out_stride) {
    std::vector<double> w(static_cast<size_t>(k));
    for (int64_t i = 0; i < k; ++i) w[static_cast<size_t>(i)] = weights(n, column, i);
    const std::byte* bias = expert.data + bias_offset + (n * kPanelCols + column) * 4;
    multiply_column(w, rows, weights.matrix.groups, shape.bias ? at<float>(bias) : 0.0, out, out_stride);
  };

  std::vector<Bounded> wide(static_cast<size_t>(tokens * H)), h(static_cast<size_t>(tokens * I));
  std::transform(x, x + tokens * H, wide.begin(), [](Bf16 one) { return Bounded{bf16_value(one.bits), 0}; });
  const Weights gate_up{expert.data, shape.gate_up(), shape.weights, expert.number};
  std::vector<Bounded> gate(static_cast<size_t>(tokens)), up(gate.size());
  for (int64_t i = 0; i < I; ++i) {
    const int64_t width = shape.activation.gated ? kPanelCols / 2 : kPanelCols;
    const int64_t panel = i / width, column = i % width;
    run(gate_up, panel, column, H, shape.gate_up_bias_offset(), wide, gate.data(), 1);
    if (shape.activation.gated)
      run(gate_up, panel, column + width, H, shape.gate_up_bias_offset(), wide, up.data(), 1);
    for (size_t t = 0; t < gate.size(); ++t)
      h[t * static_cast<size_t>(I) + static_cast<size_t>(i)] = activated(shape.activation, gate[t], up[t]);
  }

  std::vector<Bounded> results(wide.size());
  const Weights down{expert.data + shape.down_offset(), shape.down(), shape.weights, expert.number};
  for (int64_t i = 0; i < H; ++i)
    run(down, i / kPanelCols, i % kPanelCols, I, shape.down_bias_offset(), h, results.data() + i, H);
  ReferenceResult found;
  for (const Bounded& one : results) {
    found.values.push_back(scale * one.value);
    found.bounds.push_back(std::abs(scale) * one.error);
  }
  return found;
}

}  // namespace trimoe::ndp
