#include "ndp/core/mac_array.h"

#include <algorithm>

#include "ndp/core/decode.h"

namespace trimoe::ndp {
namespace {

// k that are decoded at once, for all rows: 8 KiB of numbers, which the first-level cache keeps.
constexpr int64_t kBlockK = 64;

// The compiler makes the baseline's vector instructions of these, and keeps them in registers.
using Lanes = float __attribute__((vector_size(16)));
constexpr int64_t kLanes = 4;
constexpr int64_t kVectors = kPanelCols / kLanes;

// sums[column] += sum over k of x[k] * w[k][column], one k after the other.
void add_products(const float* x, const float (*w)[kPanelCols], int64_t k_count, float* sums) {
  Lanes total[kVectors];
  std::memcpy(total, sums, sizeof total);
  for (int64_t k = 0; k < k_count; ++k) {
    Lanes row[kVectors];
    std::memcpy(row, w[k], sizeof row);
    for (int64_t i = 0; i < kVectors; ++i) total[i] += x[k] * row[i];
  }
  std::memcpy(sums, total, sizeof total);
}

template <Number kNumber>
void multiply(const PanelPart& part, const Rows& x, float* group_sums, float* sums, int64_t sums_stride) {
  constexpr Format kFormat = packed_format(kNumber);
  const int64_t group_k = part.matrix.group_lines * k_per_line(kFormat);
  alignas(64) float w[kBlockK][kPanelCols];
  for (int64_t t = 0; t < x.count; ++t) std::fill_n(sums + t * sums_stride, kPanelCols, 0.0f);
  for (int64_t begin = part.k_begin, end = 0; begin < part.k_end; begin = end) {
    const int64_t group = begin / group_k;
    end = std::min(part.k_end, (group + 1) * group_k);
    std::fill_n(group_sums, x.count * kPanelCols, 0.0f);
    for (int64_t k = begin; k < end; k += kBlockK) {
      const int64_t block_end = std::min(k + kBlockK, end);
      decode<kNumber>(part.panel, k, block_end, w);
      for (int64_t t = 0; t < x.count; ++t)
        add_products(x.data + t * x.stride + k - part.k_begin, w, block_end - k, group_sums + t * kPanelCols);
    }
    const std::byte* scales = part.panel + part.matrix.scales_offset() + group * group_scale_bytes(kFormat);
    for (int64_t t = 0; t < x.count; ++t)
      for (int64_t column = 0; column < kPanelCols; ++column)
        sums[t * sums_stride + column] +=
            group_sums[t * kPanelCols + column] * scale_at<kNumber>(scales, column);
  }
}

}  // namespace

void multiply(Number number, const PanelPart& part, const Rows& x, float* group_sums, float* sums,
              int64_t sums_stride) {
  constexpr decltype(&multiply<Number::kBf16>) kByNumber[] = {
      multiply<Number::kBf16>, multiply<Number::kF16>, multiply<Number::kInt8>, multiply<Number::kInt4>};
  kByNumber[static_cast<size_t>(number)](part, x, group_sums, sums, sums_stride);
}

}  // namespace trimoe::ndp
