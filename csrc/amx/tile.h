// Tile registers: their configuration and how this project uses them.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace trimoe::amx {
namespace {

// The eight tiles are a 2 x 2 block of C = A B, each of 16 rows of 64 bytes:
//   tmm0..3  C[row tile][column tile]     tmm4, 5  A[row tile]     tmm6, 7  B[column tile]
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};

  // Multiplies half as deep: A tiles of `k_dwords` dwords a row, B tiles of as many rows.
  explicit TileConfig(uint8_t k_dwords = 16) {
    row_bytes[4] = row_bytes[5] = static_cast<uint16_t>(4 * k_dwords);
    rows[6] = rows[7] = k_dwords;
  }
};
static_assert(sizeof(TileConfig) == 64);

inline void load_config(const TileConfig& config) {
  // GCC 12 believes that LDTILECFG reads 8 bytes and drops the stores to the other 56.
  asm volatile("" ::: "memory");
  _tile_loadconfig(&config);
}

// Memory that ordinary stores wrote before, or ordinary loads read after, tile instructions: GCC 12
// does not know that those touch it.
inline void tiles_touch_memory() { asm volatile("" ::: "memory"); }

}  // namespace
}  // namespace trimoe::amx
