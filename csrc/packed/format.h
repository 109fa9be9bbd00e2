// Formats of packed weights. What a tensor may hold is DType; this is what the kernels multiply.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace trimoe {

enum class Format : int32_t { kF32 = 0, kBf16, kInt8, kInt4, kFp8, kMxfp4 };
inline constexpr int kFormats = 6;

// How a format stores a scale.
enum class ScaleType : int32_t { kNone, kF32, kBf16, kE8m0 };

struct FormatFacts {
  std::string_view name;
  int bits;           // of one code
  ScaleType scale;    // one per group of k and column (fp8: and column tile)
  int default_group;  // k that share a scale; 0: all of them
  int zero;           // value = (code - zero) * scale, for the integer formats
};

inline constexpr std::array<FormatFacts, kFormats> kFormatFacts = {{
    {"fp32", 32, ScaleType::kNone, 0, 0},
    {"bf16", 16, ScaleType::kNone, 0, 0},
    {"int8", 8, ScaleType::kF32, 0, 128},
    {"int4", 4, ScaleType::kBf16, 128, 8},
    {"fp8", 8, ScaleType::kF32, 128, 0},  // e4m3fn; one scale for 16 columns, cut from blocks of 128
    {"mxfp4", 4, ScaleType::kE8m0, 32, 0},
}};

constexpr const FormatFacts& facts(Format format) { return kFormatFacts[static_cast<size_t>(format)]; }

// A format and, where it leaves a choice, the group of k that share a scale.
struct WeightFormat {
  Format format = Format::kBf16;
  int32_t group = 0;

  constexpr WeightFormat() = default;
  constexpr WeightFormat(Format f) : format(f), group(facts(f).default_group) {}  // NOLINT: a format is one
  constexpr WeightFormat(Format f, int32_t g) : format(f), group(g ? g : facts(f).default_group) {}
  friend constexpr bool operator==(const WeightFormat&, const WeightFormat&) = default;
};

}  // namespace trimoe
