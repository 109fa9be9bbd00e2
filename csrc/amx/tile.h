// Tile registers: their configuration and the few intrinsics, with the barriers that GCC needs.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace trimoe::amx {
namespace {

// The eight tiles as this project uses them: a 2 x 2 block of C = A B.
//   tmm0..3  C[row tile][column tile]     tmm4, 5  A[row tile]     tmm6, 7  B[column tile]
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// Holds the tiles configured for `rows` (1..32) rows of A; releases them at the end.
class TileGuard {
 public:
  explicit TileGuard(int rows) {
    const auto first = static_cast<uint8_t>(rows < 16 ? rows : 16);
    const auto second = static_cast<uint8_t>(rows > 16 ? rows - 16 : 1);
    config_.rows[0] = config_.rows[1] = config_.rows[4] = first;
    config_.rows[2] = config_.rows[3] = config_.rows[5] = second;
    // GCC 12 believes that LDTILECFG reads 8 bytes and drops the stores to the other 56.
    asm volatile("" ::: "memory");
    _tile_loadconfig(&config_);
  }
  ~TileGuard() { _tile_release(); }
  TileGuard(const TileGuard&) = delete;
  TileGuard& operator=(const TileGuard&) = delete;

 private:
  TileConfig config_;
};

}  // namespace
}  // namespace trimoe::amx
