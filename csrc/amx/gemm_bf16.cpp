#include "amx/gemm_bf16.h"

#include "amx/tile.h"
#include "common/layout.h"

namespace trimoe::amx {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kPerKTile = kTileSteps * 2;  // bf16 elements of k in one tile

// One panel: C[rows, 32] = A[rows, k] W. kRowTiles is 1 up to 16 rows, else 2.
template <int kRowTiles>
void gemm_panel(const GemmArgs& args, const std::byte* w, float* c) {
  const auto* a = static_cast<const uint16_t*>(args.a);
  const auto* a2 = a + kTileRows * args.a_stride;
  const auto a_bytes = static_cast<size_t>(args.a_stride * 2),
             c_bytes = static_cast<size_t>(args.c_stride * 4);
  const std::byte* prefetch = args.prefetch;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kRowTiles == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k_tile = 0; k_tile < args.k_tiles; ++k_tile, w += 2 * kTileBytes) {
    _tile_loadd(4, a + k_tile * kPerKTile, a_bytes);
    _tile_loadd(6, w, kStepBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + kTileBytes, kStepBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, a2 + k_tile * kPerKTile, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    for (int64_t line = 0; line < args.prefetch_lines * kTileSteps; ++line, prefetch += kStepBytes)
      __builtin_prefetch(prefetch, 0, 2);
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + kTileCols, c_bytes);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, c + kTileRows * args.c_stride, c_bytes);
    _tile_stored(3, c + kTileRows * args.c_stride + kTileCols, c_bytes);
  }
}

}  // namespace

void gemm_bf16(const GemmArgs& args) {
  const TileGuard tiles(args.rows);
  // A and W were written by ordinary stores, which GCC 12 does not know the tile loads to read.
  asm volatile("" ::: "memory");
  for (int panel = 0; panel < args.panels; ++panel) {
    const std::byte* w = args.w + panel * args.panel_bytes;
    float* c = args.c + panel * kPanelCols;
    args.rows > kTileRows ? gemm_panel<2>(args, w, c) : gemm_panel<1>(args, w, c);
  }
  asm volatile("" ::: "memory");
}

}  // namespace trimoe::amx
