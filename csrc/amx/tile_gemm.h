// The multiplication loop: up to two row tiles of A times the two column tiles of a panel.
#pragma once

#include "amx/tile.h"
#include "cpu/kernel/fetch.h"
#include "cpu/kernel/kernel.h"
#include "packed/layout.h"

namespace trimoe::amx {
namespace {

inline constexpr int kTileRows = 16;
inline constexpr int kBlockRows = 2 * kTileRows;
inline constexpr int64_t kStepBytes = 2 * kTileBytes;  // of B: both column tiles

enum class Product { kBf16, kInt8 };

template <int kRowTiles>
[[gnu::always_inline]] inline void zero_block() {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kRowTiles == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
}

template <int kRowTiles>
[[gnu::always_inline]] inline void load_block(const void* c, int64_t c_stride) {
  const auto* from = static_cast<const float*>(c);
  const auto bytes = static_cast<size_t>(c_stride) * 4;
  tiles_touch_memory();
  _tile_loadd(0, from, bytes);
  _tile_loadd(1, from + kTileCols, bytes);
  if constexpr (kRowTiles == 2) {
    _tile_loadd(2, from + kTileRows * c_stride, bytes);
    _tile_loadd(3, from + kTileRows * c_stride + kTileCols, bytes);
  }
}

// Two tiles of A against two of B: each tile is loaded once and used as often as it can be, with a share
// of the fetching (see fetch.h) behind each load. Written out, because GCC makes the register's name of
// the text of the argument.
template <Product kProduct, int kRowTiles, bool kFetch>
[[gnu::always_inline]] inline void multiply_step(const std::byte* a, int64_t a_stride, const std::byte* b,
                                                 const std::byte* next) {
  constexpr bool kBf16 = kProduct == Product::kBf16;  // else signed activations times unsigned codes
  constexpr int kShare = kFetch ? kStreams / 2 : 0;   // two rows in four places
  _tile_loadd(4, a, static_cast<size_t>(a_stride));
  _tile_loadd(6, b, kLineBytes);
  fetch<0, 0, kShare>(next);
  if constexpr (kBf16)
    _tile_dpbf16ps(0, 4, 6);
  else
    _tile_dpbsud(0, 4, 6);
  _tile_loadd(7, b + kTileBytes, kLineBytes);
  fetch<0, kShare, kShare>(next);
  if constexpr (kBf16)
    _tile_dpbf16ps(1, 4, 7);
  else
    _tile_dpbsud(1, 4, 7);
  if constexpr (kRowTiles == 2) {
    _tile_loadd(5, a + kTileRows * a_stride, static_cast<size_t>(a_stride));
    fetch<1, 0, kShare>(next);
    if constexpr (kBf16)
      _tile_dpbf16ps(2, 5, 6);
    else
      _tile_dpbsud(2, 5, 6);
    fetch<1, kShare, kShare>(next);
    if constexpr (kBf16)
      _tile_dpbf16ps(3, 5, 7);
    else
      _tile_dpbsud(3, 5, 7);
  } else {
    fetch<1, 0, 2 * kShare>(next);
  }
}

template <int kRowTiles>
[[gnu::always_inline]] inline void store_block(void* c, int64_t c_stride) {
  auto* to = static_cast<float*>(c);
  const auto bytes = static_cast<size_t>(c_stride) * 4;
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + kTileCols, bytes);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, to + kTileRows * c_stride, bytes);
    _tile_stored(3, to + kTileRows * c_stride + kTileCols, bytes);
  }
  tiles_touch_memory();
}

}  // namespace
}  // namespace trimoe::amx
