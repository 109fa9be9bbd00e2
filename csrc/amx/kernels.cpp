#include "amx/kernels.h"

#include <cstring>

#include "amx/expand.h"
#include "amx/tile_gemm.h"
#include "common/memory.h"

namespace trimoe::amx {
namespace {

// What one format asks of the loop below. kLines: lines of B that one multiplication takes; fewer than
// a tile has where a group of k is smaller than a tile.
template <Format kStored, Product kMultiply, bool kScaleCodes, int kLines = kTileLines>
struct Plan {
  static constexpr Format kFormat = kStored;
  static constexpr Product kProduct = kMultiply;
  static constexpr bool kScaled = kScaleCodes;  // while expanding: exact ones only; else sums are, by group
  static constexpr bool kStoredAsB = kStored == Format::kBf16 || kStored == Format::kInt8;
  static constexpr int kDepth = kLines;
  static constexpr int kExpandedBytes = kExpansion<kStored, kMultiply> * kStepBytes;   // of a stored k tile
  static constexpr int kSteps = kExpansion<kStored, kMultiply> * kTileLines / kLines;  // in a stored k tile
  static constexpr bool kSumsAreResults = kStored == Format::kBf16 || kScaleCodes;
  static constexpr bool kOneGroup = kSumsAreResults || kStored == Format::kInt8;
};

// Sums of one group -> C: scaled by column and row, written or added. In the row, its scale and
// offsets lie behind the codes.
template <class P>
void finish_group(const int32_t* sums, int rows, const GemmArgs& args, const std::byte* w, const std::byte* a,
                  int64_t group, float* c) {
  const std::byte* scales = w + args.k_tiles * 2 * kTileBytes;
  const __m512 scale[] = {load_scale<Avx512, P::kFormat>(scales, group, 0),
                          load_scale<Avx512, P::kFormat>(scales, group, 1)};
  const std::byte* trailer = a + args.k_tiles * k_per_tile(P::kFormat);
  for (int row = 0; row < rows; ++row, c += args.c_stride, trailer += args.a_stride)
    for (int tile = 0; tile < 2; ++tile) {
      const int32_t* from = sums + row * kPanelCols + tile * kTileCols;
      __m512 value;
      if constexpr (P::kProduct == Product::kInt8) {
        float row_scale;
        int32_t offset;
        std::memcpy(&row_scale, trailer, 4);
        std::memcpy(&offset, trailer + 4 + 4 * group, 4);
        const __m512i sum = Avx512::add_int(_mm512_load_si512(from), Avx512::set_int(offset));
        value = Avx512::mul(Avx512::mul(Avx512::to_float(sum), scale[tile]), Avx512::set(row_scale));
      } else {
        value = Avx512::mul(_mm512_load_ps(from), scale[tile]);
      }
      float* to = c + tile * kTileCols;
      Avx512::store(to, group == 0 ? value : Avx512::add(Avx512::load(to), value));
    }
}

// Rows [first, first + rows) of one call, and its share of what all row blocks of the call do together.
struct RowBlock {
  int first, rows;
  int index, count;  // of the row blocks
};

// One panel for one row block. `expanded` holds the steps of B of all of this call's k, or of two stored k
// tiles in turn; the first block makes them, one stored tile ahead of their use. Sums of a group that this
// call's k does not end wait in C.
template <class P, int kRowTiles>
void gemm_block(const GemmArgs& args, const std::byte* w, float* c, const RowBlock& block,
                std::byte* expanded, int64_t ring) {
  alignas(64) int32_t sums[kBlockRows * kPanelCols];
  // Copies, because tile instructions count as writing any memory.
  const int64_t a_stride = args.a_stride, k_tiles = args.k_tiles, k_end = args.k_end;
  const std::byte* a = args.a + block.first * a_stride;
  const std::byte* scales = w + k_tiles * 2 * kTileBytes;
  FetchCursor next = *args.next;
  const auto expand_one = [&](int64_t k_tile) {
    if constexpr (!P::kStoredAsB)
      expand_tile<P::kFormat, P::kProduct, P::kScaled>(
          w + k_tile * 2 * kTileBytes,
          scales + k_tile * kTileLines / args.group_lines * group_scale_bytes(P::kFormat), args.group_lines,
          expanded + k_tile % ring * P::kExpandedBytes);
  };
  if (block.index == 0) expand_one(args.k_begin);
  if (P::kOneGroup && args.k_begin > 0)
    load_block<kRowTiles>(c, args.c_stride);
  else
    zero_block<kRowTiles>();
  int64_t group = args.k_begin * kTileLines / args.group_lines;
  int until_fetch = block.index;  // k tiles: the row blocks of a call together fetch as much as they read
  for (int64_t k_tile = args.k_begin; k_tile < k_end; ++k_tile) {
    if (block.index == 0 && k_tile + 1 < k_end) expand_one(k_tile + 1);
    tiles_touch_memory();
    const bool fetches = until_fetch == 0 && next.row;
    until_fetch = until_fetch == 0 ? block.count - 1 : until_fetch - 1;
    const std::byte* b =
        P::kStoredAsB ? w + k_tile * kStepBytes : expanded + k_tile % ring * P::kExpandedBytes;
    for (int step = 0; step < P::kSteps; ++step) {
      const int line = step * P::kDepth;
      const std::byte* step_a = a + (k_tile * P::kSteps + step) * 4 * P::kDepth;
      const std::byte* step_b = b + line / kTileLines * kStepBytes + line % kTileLines * kLineBytes;
      if (step == 0 && fetches)
        multiply_step<P::kProduct, kRowTiles, true>(step_a, a_stride, step_b, next.row);
      else
        multiply_step<P::kProduct, kRowTiles, false>(step_a, a_stride, step_b, nullptr);
      if constexpr (!P::kOneGroup) {
        const int64_t done = k_tile * P::kSteps + step + 1, total = k_tiles * P::kSteps;
        const int64_t per_group = args.group_lines * P::kSteps / kTileLines;
        if (done % per_group == 0 || done == total) {
          store_block<kRowTiles>(sums, kPanelCols);
          if (done < total) zero_block<kRowTiles>();
          finish_group<P>(sums, block.rows, args, w, a, group++, c);
        }
      }
    }
    if (fetches) advance(next, 2);
  }
  if constexpr (P::kSumsAreResults) {
    store_block<kRowTiles>(c, args.c_stride);
  } else if constexpr (P::kOneGroup) {
    if (k_end < k_tiles) {
      store_block<kRowTiles>(c, args.c_stride);
    } else {
      store_block<kRowTiles>(sums, kPanelCols);
      finish_group<P>(sums, block.rows, args, w, a, 0, c);
    }
  }
  *args.next = next;
}

// Room for expanded weights; a thread's own, as large as the largest yet.
std::byte* expansion_buffer(int64_t bytes) {
  thread_local PageBuffer buffer;
  return buffer.reserve(static_cast<size_t>(bytes));
}

template <class P>
void gemm(const GemmArgs& args) {
  const int blocks = (args.rows + kBlockRows - 1) / kBlockRows;
  // Several row blocks share one expansion, which then must hold all of it.
  const int64_t ring = blocks == 1 ? 2 : args.k_end - args.k_begin;
  std::byte* expanded = nullptr;
  if constexpr (!P::kStoredAsB) expanded = expansion_buffer(ring * P::kExpandedBytes);
  for (int panel = 0; panel < args.panels; ++panel)
    for (int index = 0; index < blocks; ++index) {
      const int first = index * kBlockRows;
      const RowBlock block{first, args.rows - first < kBlockRows ? args.rows - first : kBlockRows, index,
                           blocks};
      const std::byte* w = args.w + panel * args.panel_bytes;
      float* c = args.c + first * args.c_stride + panel * kPanelCols;
      if (block.rows > kTileRows)
        gemm_block<P, 2>(args, w, c, block, expanded, ring);
      else
        gemm_block<P, 1>(args, w, c, block, expanded, ring);
    }
}

}  // namespace

void enter() { load_config(TileConfig()); }
void leave() { _tile_release(); }

void gemm_bf16(const GemmArgs& args) { gemm<Plan<Format::kBf16, Product::kBf16, false>>(args); }
void gemm_int8(const GemmArgs& args) { gemm<Plan<Format::kInt8, Product::kInt8, false>>(args); }
void gemm_int4(const GemmArgs& args) {
  constexpr int kHalf = kTileLines / 2;  // of a tile: 32 k in 8 bits
  if (args.group_lines * k_per_line(Format::kInt4) >= kTileLines * 4)
    return gemm<Plan<Format::kInt4, Product::kInt8, false>>(args);
  load_config(TileConfig(kHalf));
  gemm<Plan<Format::kInt4, Product::kInt8, false, kHalf>>(args);
  load_config(TileConfig());
}
void gemm_int4_a16(const GemmArgs& args) { gemm<Plan<Format::kInt4, Product::kBf16, false>>(args); }
void gemm_fp8(const GemmArgs& args) { gemm<Plan<Format::kFp8, Product::kBf16, false>>(args); }
void gemm_mxfp4(const GemmArgs& args) { gemm<Plan<Format::kMxfp4, Product::kBf16, true>>(args); }

}  // namespace trimoe::amx
