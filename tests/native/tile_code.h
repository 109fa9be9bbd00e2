// Tile instructions by inline assembly, with operands that the compiler sees.
#pragma once

#include <cstdint>
#include <cstring>

namespace trimoe::test {

struct alignas(64) Config {
  uint8_t byte[64] = {1};

  void set(unsigned tile, unsigned rows, unsigned row_bytes) {
    byte[48 + tile] = static_cast<uint8_t>(rows);
    std::memcpy(byte + 16 + 2 * tile, &row_bytes, 2);
  }
  // All eight tiles of 16 rows of 64 bytes.
  static Config full() {
    Config config;
    for (unsigned tile = 0; tile < 8; ++tile) config.set(tile, 16, 64);
    return config;
  }
};

inline void load_config(const Config& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
inline void release() { asm volatile("tilerelease"); }

template <int kTile>
void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}

}  // namespace trimoe::test
