#include "ndp/system/split.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace trimoe::ndp {
namespace {

constexpr int32_t kFineGroup = 32;  // of int4: the smallest that kernels and cores take

// Panels of a packed matrix, of which k real ones of k count.
template <typename Byte>
struct Panels {
  PackedMatrix matrix;
  int64_t k;
  Byte* data;

  int64_t group_k(int64_t per_line) const { return matrix.group_lines * per_line; }
};

// k 0 of `to` is k k_offset of `from`, which may be negative; what only one of them has stays.
void copy_panels(Format format, const Panels<const std::byte>& from, const Panels<std::byte>& to,
                 int64_t panels, int64_t k_offset) {
  const int64_t per_line = k_per_line(format), scale_bytes = group_scale_bytes(format);
  const int64_t lines = ceil_div(to.k, per_line), from_lines = ceil_div(from.k, per_line);
  const auto line_at = [](int64_t line, int64_t tile) {
    return line / kTileLines * 2 * kTileBytes + tile * kTileBytes + line % kTileLines * kLineBytes;
  };
  for (int64_t panel = 0; panel < panels; ++panel) {
    const std::byte* source = from.data + panel * from.matrix.panel_bytes();
    std::byte* target = to.data + panel * to.matrix.panel_bytes();
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t other = line + k_offset / per_line;
      if (other < 0 || other >= from_lines) continue;
      for (const int64_t tile : {0, 1})
        std::memcpy(target + line_at(line, tile), source + line_at(other, tile), kLineBytes);
    }
    for (int64_t group = 0; group * to.group_k(per_line) < to.k && scale_bytes > 0; ++group) {
      const int64_t k = group * to.group_k(per_line) + k_offset;
      if (k < 0 || k >= from.k) continue;
      std::memcpy(target + to.matrix.scales_offset() + group * scale_bytes,
                  source + from.matrix.scales_offset() + k / from.group_k(per_line) * scale_bytes,
                  static_cast<size_t>(scale_bytes));
    }
  }
}

// Both ways: `cut` says which side is the part.
void copy(const ExpertShape& whole, const SplitPart& part, const std::byte* from, std::byte* to, bool cut) {
  const ExpertShape& source = cut ? whole : part.shape;
  const ExpertShape& target = cut ? part.shape : whole;
  const Format format = whole.weights.format;
  const int64_t first = part.begin / whole.panel_width(), panels = part.shape.gate_up().panels;
  const int64_t from_panel = cut ? first : 0, to_panel = cut ? 0 : first;
  copy_panels(format, {source.gate_up(), source.hidden, from + from_panel * source.gate_up().panel_bytes()},
              {target.gate_up(), target.hidden, to + to_panel * target.gate_up().panel_bytes()}, panels, 0);
  copy_panels(format, {source.down(), source.inter, from + source.down_offset()},
              {target.down(), target.inter, to + target.down_offset()}, whole.down().panels,
              cut ? part.begin : -part.begin);
  if (!whole.bias) return;
  constexpr int64_t kPanelBias = kPanelCols * 4;
  std::memcpy(to + target.gate_up_bias_offset() + to_panel * kPanelBias,
              from + source.gate_up_bias_offset() + from_panel * kPanelBias,
              static_cast<size_t>(panels * kPanelBias));
  if (part.begin == 0)
    std::memcpy(to + target.down_bias_offset(), from + source.down_bias_offset(),
                static_cast<size_t>(whole.down().panels * kPanelBias));
}

}  // namespace

std::vector<SplitPart> split(const ExpertShape& whole, int parts) {
  const bool has_groups = whole.weights.group > 0;
  const int64_t unit = std::lcm(whole.panel_width(), has_groups ? kFineGroup : 1);
  const int64_t units = ceil_div(whole.inter, unit);
  const auto bound = [&](int64_t index) { return std::min(units * index / parts * unit, whole.inter); };
  ExpertShape shape = whole;
  for (int64_t index = 1; index < parts && has_groups; ++index)
    if (bound(index) % whole.weights.group != 0 && bound(index) < whole.inter)
      shape.weights.group = kFineGroup;
  std::vector<SplitPart> found;
  for (int64_t index = 0; index < parts; ++index) {
    shape.inter = bound(index + 1) - bound(index);
    found.push_back({bound(index), bound(index + 1), shape});
  }
  return found;
}

void clear_expert(const ExpertShape& shape, std::byte* bytes) {
  std::memset(bytes, 0, static_cast<size_t>(shape.expert_bytes()));
  const FormatFacts& format = facts(shape.weights.format);
  const int zero = format.bits == 4 ? format.zero * 0x11 : format.zero;
  const auto clear = [&](const PackedMatrix& matrix, std::byte* at) {
    for (int64_t panel = 0; panel < matrix.panels; ++panel, at += matrix.panel_bytes())
      std::memset(at, zero, static_cast<size_t>(matrix.scales_offset()));
  };
  clear(shape.gate_up(), bytes);
  clear(shape.down(), bytes + shape.down_offset());
}

void cut_part(const ExpertShape& whole, const std::byte* from, const SplitPart& part, std::byte* to) {
  clear_expert(part.shape, to);
  copy(whole, part, from, to, true);
}

void join_part(const ExpertShape& whole, const SplitPart& part, const std::byte* from, std::byte* to) {
  copy(whole, part, from, to, false);
}

}  // namespace trimoe::ndp
