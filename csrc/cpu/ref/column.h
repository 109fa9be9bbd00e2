// Packed weights element by element: by the description of the layout alone, for whoever checks.
#pragma once

#include "cpu/kernel/kernel.h"
#include "packed/codes.h"
#include "packed/layout.h"

namespace trimoe::cpu::ref {

// Where the weights of column n of a call lie.
template <Format kFormat>
struct Column {
  const std::byte* panel;
  int64_t index;  // in the panel
  int64_t scales_offset;

  Column(const GemmArgs& args, int64_t n)
      : panel(args.w + n / kPanelCols * args.panel_bytes),
        index(n % kPanelCols),
        scales_offset(args.k_tiles * 2 * kTileBytes) {}

  int32_t code(int64_t k) const {
    const CodePlace place = code_place(kFormat, index, k);
    const auto byte = std::to_integer<int32_t>(panel[place.byte]);
    return facts(kFormat).bits == 4 ? byte >> place.shift & 15 : byte;
  }

  // Without its scale; of the integer formats for rows that are not quantised.
  float value(int64_t k) const {
    const std::byte* from = panel + code_place(kFormat, index, k).byte;
    if constexpr (kFormat == Format::kF32) return *reinterpret_cast<const float*>(from);
    if constexpr (kFormat == Format::kBf16) return to_f32(*reinterpret_cast<const Bf16*>(from));
    if constexpr (kFormat == Format::kFp8) return to_f32(E4m3{static_cast<uint8_t>(code(k))});
    if constexpr (kFormat == Format::kMxfp4) return to_f32(E2m1{static_cast<uint8_t>(code(k))});
    return static_cast<float>(code(k) - facts(kFormat).zero);
  }

  float scale(int64_t group) const {
    const std::byte* from = panel + scales_offset + group * group_scale_bytes(kFormat);
    if constexpr (kFormat == Format::kInt8) return reinterpret_cast<const float*>(from)[index];
    if constexpr (kFormat == Format::kInt4) return to_f32(reinterpret_cast<const Bf16*>(from)[index]);
    if constexpr (kFormat == Format::kFp8) return reinterpret_cast<const float*>(from)[index / kTileCols];
    if constexpr (kFormat == Format::kMxfp4) return to_f32(reinterpret_cast<const E8m0*>(from)[index]);
    return 1.0f;
  }
};

}  // namespace trimoe::cpu::ref
