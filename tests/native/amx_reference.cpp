#include "amx_reference.h"

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <vector>

#include "packed/layout.h"

namespace trimoe::test {
namespace {

template <typename T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

float bf16_at(const std::byte* from) { return std::bit_cast<float>(uint32_t{read<uint16_t>(from)} << 16); }

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

float add(float x, float y) { return flushed(flushed(x) + flushed(y)); }

// fmaf() with flushing. A sum that is subnormal before it is rounded may be rounded up to the smallest
// normal number in two ways: with the exponent unbounded, which is what decides about flushing, or on the
// coarser grid of subnormals, which is what fmaf() does.
float multiply_add(float x, float y, float z) {
  x = flushed(x), y = flushed(y), z = flushed(z);
  const float sum = std::fmaf(x, y, z);
  const bool at_edge = std::fabs(sum) == FLT_MIN;
  const double wide = double{x} * y + z;  // the product of two bf16 numbers is exact
  if (at_edge && std::fabs(wide) < double{FLT_MIN} * (1 - 0x1p-25)) return std::copysign(0.0f, sum);
  return flushed(sum);
}

// As VCVTNE2PS2BF16 rounds: to nearest, ties to even, subnormals to zero.
float rounded_to_bf16(float x) {
  if (std::isnan(x)) return x;
  const auto bits = std::bit_cast<uint32_t>(flushed(x));
  return std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u);
}

float e4m3(unsigned code) {
  const unsigned exponent = (code >> 3) & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const double magnitude =
      exponent ? std::ldexp(8 + mantissa, static_cast<int>(exponent) - 10) : std::ldexp(mantissa, -9);
  return static_cast<float>(code & 128 ? -magnitude : magnitude);
}

float e2m1(unsigned code) {
  constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code & 8 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7];
}

float e8m0(unsigned code) {
  return code == 255 ? NAN : static_cast<float>(std::ldexp(1.0, static_cast<int>(code) - 127));
}

// One panel of a packed matrix, read code by code.
struct Panel {
  Format format;
  const std::byte* data;
  int64_t k_tiles, group_lines;

  int64_t depth() const { return k_tiles * k_per_tile(format); }
  int64_t group_k() const { return group_lines * k_per_line(format); }

  unsigned code(int64_t column, int64_t k) const {
    const CodePlace place = code_place(format, column, k);
    const auto byte = static_cast<unsigned>(data[place.byte]);
    return facts(format).bits == 4 ? (byte >> place.shift) & 15 : byte;
  }

  float scale(int64_t column, int64_t group) const {
    const std::byte* scales = data + k_tiles * 2048;
    switch (format) {
      case Format::kInt8:
        return read<float>(scales + (group * 32 + column) * 4);
      case Format::kInt4:
        return bf16_at(scales + (group * 32 + column) * 2);
      case Format::kFp8:
        return read<float>(scales + (group * 2 + column / 16) * 4);
      case Format::kMxfp4:
        return e8m0(static_cast<unsigned>(scales[group * 32 + column]));
      default:
        return 1;
    }
  }

  // As the tile unit gets it, in bf16.
  float weight(int64_t column, int64_t k) const {
    if (format == Format::kBf16) return bf16_at(data + code_place(format, column, k).byte);
    if (format == Format::kFp8) return e4m3(code(column, k));
    if (format == Format::kInt4) return static_cast<float>(static_cast<int>(code(column, k)) - 8);
    return rounded_to_bf16(e2m1(code(column, k)) * scale(column, k / group_k()));
  }
};

// result(column of the matrix's panel) makes what turns a row of A into one element of C.
template <typename Result>
void for_each_element(Format format, const GemmArgs& args, const Result& result) {
  for (int64_t panel = 0; panel < args.panels; ++panel) {
    const Panel source{format, args.w + panel * args.panel_bytes, args.k_tiles, args.group_lines};
    for (int64_t column = 0; column < 32; ++column) {
      const auto element = result(source, column);
      for (int row = 0; row < args.rows; ++row)
        args.c[row * args.c_stride + panel * 32 + column] = element(args.a + row * args.a_stride);
    }
  }
}

auto column_int8(const Panel& panel, int64_t column) {
  const int64_t depth = panel.depth(), group_k = panel.group_k();
  std::vector<int> weights(static_cast<size_t>(depth));
  for (int64_t k = 0; k < depth; ++k)
    weights[static_cast<size_t>(k)] = static_cast<int>(panel.code(column, k)) - facts(panel.format).zero;
  return [=](const std::byte* row) {
    constexpr int kSwapped[] = {0, 2, 1, 3};  // the place of each k among four
    const auto row_scale = read<float>(row + depth);
    float result = 0;
    for (int64_t first = 0; first < depth; first += group_k) {
      int32_t sum = 0;
      for (int64_t k = first; k < depth && k < first + group_k; ++k)
        sum += weights[static_cast<size_t>(k)] * read<int8_t>(row + k / 4 * 4 + kSwapped[k % 4]);
      const float scaled = static_cast<float>(sum) * panel.scale(column, first / group_k);
      result = first == 0 ? scaled * row_scale : result + scaled * row_scale;
    }
    return result;
  };
}

auto column_bf16(const Panel& panel, int64_t column) {
  const bool scaled_sums = panel.format == Format::kFp8 || panel.format == Format::kInt4;
  const int64_t depth = panel.depth(), group_k = scaled_sums ? panel.group_k() : depth;
  std::vector<float> weights(static_cast<size_t>(depth));
  for (int64_t k = 0; k < depth; ++k) weights[static_cast<size_t>(k)] = panel.weight(column, k);
  return [=](const std::byte* row) {
    float result = 0;
    for (int64_t first = 0; first < depth; first += group_k) {
      float sum = 0;
      for (int64_t tile = first; tile < depth && tile < first + group_k; tile += 32) {
        float part[2] = {0, 0};
        for (int64_t k = tile; k < tile + 32; ++k)
          part[k % 2] = multiply_add(bf16_at(row + 2 * k), weights[static_cast<size_t>(k)], part[k % 2]);
        sum = add(sum, add(part[0], part[1]));
      }
      if (!scaled_sums) return sum;
      const float scale = panel.scale(column, first / group_k);
      result = first == 0 ? sum * scale : result + sum * scale;
    }
    return result;
  };
}

}  // namespace

void reference_int8(Format weights, const GemmArgs& args) { for_each_element(weights, args, column_int8); }
void reference_bf16(Format weights, const GemmArgs& args) { for_each_element(weights, args, column_bf16); }

}  // namespace trimoe::test
