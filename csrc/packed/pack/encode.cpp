#include "packed/pack/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "packed/codes.h"
#include "packed/pack/int4.h"
#include "packed/pack/lanes.h"

namespace trimoe {
namespace {

struct CodeBlock {
  alignas(64) uint32_t codes[kBlockK][kTileCols];
};

// Rounds to nearest even; |value| < 2^22.
uint32_t round_to_code(float value, int zero) {
  return f32_to_bits(value + 12582912.0f) - 0x4b400000u + static_cast<uint32_t>(zero);
}

template <Format kFormat>
void write_lines(const CodeBlock& block, int64_t first_k, const TileTarget& target) {
  constexpr int64_t kPerLine = k_per_line(kFormat);
  const int64_t count = std::min(kBlockK, target.matrix.k_padded - first_k);
  for (int64_t k = 0; k < count; k += kPerLine) {
    uint32_t line[kTileCols] = {};
    for (int64_t i = 0; i < kPerLine; ++i) {
      const CodePlace place = code_place(kFormat, 0, i);
      const auto shift = static_cast<uint32_t>(place.byte * 8 + place.shift);
      for (int64_t c = 0; c < kTileCols; ++c) line[c] |= block.codes[k + i][c] << shift;
    }
    std::memcpy(target.line(first_k + k), line, sizeof line);
  }
}

template <typename CodeOf>
void encode_each(const FloatBlock& block, int64_t begin, int64_t end, CodeBlock& codes,
                 const CodeOf& code_of) {
  for (int64_t k = begin; k < end; ++k)
    for (int64_t c = 0; c < kTileCols; ++c) codes.codes[k][c] = code_of(block.values[k][c], c);
}

void inverses_of(const float (&scales)[kTileCols], float (&inverses)[kTileCols]) {
  for (int64_t c = 0; c < kTileCols; ++c)
    inverses[c] = std::abs(scales[c]) < kTiny / 448.0f ? 0.0f : 1.0f / scales[c];
}

void encode_int8(const FloatBlock& block, CodeBlock& codes, const TileTarget& target) {
  float scales[kTileCols], inverse[kTileCols];
  std::memcpy(scales, target.scales(0), sizeof scales);
  inverses_of(scales, inverse);
  encode_each(block, 0, kBlockK, codes, [&](float value, int64_t c) {
    return round_to_code(value * inverse[c], facts(Format::kInt8).zero);
  });
}

void encode_int4(const FloatBlock& block, int64_t first_k, CodeBlock& codes, const TileTarget& target) {
  const int64_t group = target.weights.group;
  for (int64_t k = 0; k < kBlockK; k += group) {
    float scales[kTileCols], inverse[kTileCols];
    search_int4_scales(block.values + k, group, scales);
    inverses_of(scales, inverse);
    encode_each(block, k, k + group, codes, [&](float value, int64_t c) {
      float q = value * inverse[c];
      q = q < -8.0f ? -8.0f : q;
      q = q > 7.0f ? 7.0f : q;
      return round_to_code(q, facts(Format::kInt4).zero);
    });
    Bf16 stored[kTileCols];
    for (int64_t c = 0; c < kTileCols; ++c) stored[c] = from_f32<Bf16>(scales[c]);
    std::memcpy(target.scales((first_k + k) / group), stored, sizeof stored);
  }
}

void encode_fp8(const FloatBlock& block, int64_t first_k, CodeBlock& codes, const TileTarget& target) {
  float columns[kTileCols] = {};
  raise_to_largest(block, columns);
  const float largest = *std::max_element(columns, columns + kTileCols);
  const float scale = largest < kTiny ? 0.0f : largest / 448.0f;
  const float inverse = largest < kTiny ? 0.0f : 448.0f / largest;
  encode_each(block, 0, kBlockK, codes,
              [&](float value, int64_t) { return uint32_t{from_f32<E4m3>(value * inverse).bits}; });
  std::memcpy(target.scales(first_k / kBlockK), &scale, sizeof scale);
}

// Sum of squares that the nearest codes leave, for the inverse of a power of two.
Lanes mxfp4_error(GroupValues values, int64_t group, int64_t column, Lanes inverse) {
  Lanes sum{};
  for (int64_t k = 0; k < group; ++k) {
    const Lanes value = magnitude(load(values[k] + column) * inverse);
    // 1.5 * 2^22 has half units in the last place, as codes below 2 have; then 1 below 4, and 2.
    const Lanes round = value < all(2.0f)   ? all(0x1.8p22f)
                        : value < all(4.0f) ? all(0x1.8p23f)
                                            : all(0x1.8p24f);
    const Lanes error = value - min((value + round) - round, all(6.0f));
    sum += error * error;
  }
  return sum;
}

// 2^(exponent - 127), for 1 to 254.
Lanes power_of_two(IntLanes exponent) { return std::bit_cast<Lanes>(exponent << 23); }

// Exponents of e8m0: of the two that bring the largest value of a column next to the largest code the one
// that leaves the less squared error. 127 for a column of zeros.
void search_mxfp4_exponents(GroupValues values, int64_t group, uint8_t (&exponents)[kTileCols]) {
  for (int64_t column = 0; column < kTileCols; column += kLanes) {
    const Lanes largest = magnitude(extreme_of(values, group, column));
    // Brings the largest value to 4..8, of which what is beyond 6 is cut; the next one to 2..4.
    const IntLanes exponent = (std::bit_cast<IntLanes>(largest) >> 23) - 2;
    const IntLanes lower = largest < all(kTiny) ? IntLanes{} + 127 : exponent;
    const Lanes lower_error = mxfp4_error(values, group, column, power_of_two(254 - lower));
    const Lanes upper_error = mxfp4_error(values, group, column, power_of_two(253 - lower));
    const IntLanes chosen = lower - (all(4.0f) * upper_error < lower_error);  // true is -1
    for (int64_t i = 0; i < kLanes; ++i) exponents[column + i] = static_cast<uint8_t>(chosen[i]);
  }
}

void encode_mxfp4(const FloatBlock& block, int64_t first_k, CodeBlock& codes, const TileTarget& target) {
  const int64_t group = target.weights.group;
  for (int64_t k = 0; k < kBlockK; k += group) {
    uint8_t exponents[kTileCols];
    search_mxfp4_exponents(block.values + k, group, exponents);
    float inverse[kTileCols];
    for (int64_t c = 0; c < kTileCols; ++c) inverse[c] = bits_to_f32((254u - exponents[c]) << 23);
    encode_each(block, k, k + group, codes, [&](float value, int64_t c) {
      float x = value * inverse[c];
      x = x > 6.0f ? 6.0f : x;
      x = x < -6.0f ? -6.0f : x;
      return uint32_t{from_f32<E2m1>(x).bits};
    });
    std::memcpy(target.scales((first_k + k) / group), exponents, sizeof exponents);
  }
}

}  // namespace

bool is_finite(const FloatBlock& block) {
  uint32_t special = 0;
  for (const auto& row : block.values)
    for (const float value : row) special |= (f32_to_bits(value) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return special == 0;
}

void raise_to_largest(const FloatBlock& block, float (&largest)[kTileCols]) {
  for (const auto& row : block.values)
    for (int64_t c = 0; c < kTileCols; ++c) {
      const float magnitude = std::abs(row[c]);
      largest[c] = magnitude > largest[c] ? magnitude : largest[c];
    }
}

void write_row_scales(const float (&largest)[kTileCols], const TileTarget& target) {
  float scales[kTileCols];
  for (int64_t c = 0; c < kTileCols; ++c) scales[c] = largest[c] < kTiny ? 0.0f : largest[c] / 127.0f;
  std::memcpy(target.scales(0), scales, sizeof scales);
}

void encode_block(const FloatBlock& block, int64_t first_k, const TileTarget& target) {
  CodeBlock codes;
  switch (target.weights.format) {
    case Format::kF32:
      encode_each(block, 0, kBlockK, codes, [](float value, int64_t) { return f32_to_bits(value); });
      return write_lines<Format::kF32>(codes, first_k, target);
    case Format::kBf16:
      encode_each(block, 0, kBlockK, codes,
                  [](float value, int64_t) { return uint32_t{from_f32<Bf16>(value).bits}; });
      return write_lines<Format::kBf16>(codes, first_k, target);
    case Format::kInt8:
      encode_int8(block, codes, target);
      return write_lines<Format::kInt8>(codes, first_k, target);
    case Format::kInt4:
      encode_int4(block, first_k, codes, target);
      return write_lines<Format::kInt4>(codes, first_k, target);
    case Format::kFp8:
      encode_fp8(block, first_k, codes, target);
      return write_lines<Format::kFp8>(codes, first_k, target);
    case Format::kMxfp4:
      encode_mxfp4(block, first_k, codes, target);
      return write_lines<Format::kMxfp4>(codes, first_k, target);
  }
}

}  // namespace trimoe
