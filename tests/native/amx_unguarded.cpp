// How not to do it; see amx_config_check.cpp. Compiled as the tile kernels are.
#include "amx_unguarded.h"

#include <cstdint>

#include <immintrin.h>

namespace trimoe::test {

void load_config_unguarded(int rows) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t tile_rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) config.tile_rows[tile] = static_cast<uint8_t>(rows);
  _tile_loadconfig(&config);
}

}  // namespace trimoe::test
