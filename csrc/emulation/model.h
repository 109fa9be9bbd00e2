// Software model of one thread's AMX tile unit: state, instructions, and the rules they are held to.
// Written from the instruction descriptions of Intel's Software Developer's Manual (palette 1, AMX-TILE,
// AMX-BF16, AMX-INT8). Functional only: it says what an instruction computes, never how long it takes.
#pragma once

#include <cstdint>

namespace trimoe::emulation {

inline constexpr unsigned kTiles = 8;
inline constexpr unsigned kMaxTileRows = 16;
inline constexpr unsigned kMaxRowBytes = 64;
inline constexpr unsigned kConfigBytes = 64;

// What the processor would raise; `rule` says in words what was violated.
struct Fault {
  enum Kind { kNone, kInvalidOpcode, kGeneralProtection } kind = kNone;
  const char* rule = "";

  bool raised() const { return kind != kNone; }
};

// Executed so far. Rows are those that moved: a tile of 5 rows moves 5.
struct Counters {
  uint64_t configs, releases, zeros, loads, stores;
  uint64_t multiplies_bf16, multiplies_int8;
  uint64_t multiply_rows;               // rows of C over all multiplies; the hardware takes one a cycle
  uint64_t macs;                        // multiply-adds, of two or four a dword
  uint64_t load_rows, load_split_rows;  // split: the row straddles two cache lines
  uint64_t store_rows, store_split_rows;
  uint64_t loads_without_index;  // TILELOADD whose stride is 0, because the code names no index register
};

struct Tile {
  alignas(64) uint8_t row[kMaxTileRows][kMaxRowBytes];
};

// Plain data, valid when zero: it lives in pages mapped on first use, inside a signal handler too.
// An instruction that raises a fault leaves the state as it was.
struct TileUnit {
  Tile tile[kTiles];
  uint16_t row_bytes[kTiles];
  uint8_t rows[kTiles];
  uint8_t palette;  // 0: not configured
  uint8_t start_row;
  Counters counters;

  bool configured() const { return palette != 0; }

  Fault load_config(const void* from);                          // LDTILECFG, 64 bytes
  void store_config(void* to) const;                            // STTILECFG
  void release();                                               // TILERELEASE
  Fault zero(unsigned t);                                       // TILEZERO
  Fault load(unsigned t, const uint8_t* base, int64_t stride);  // TILELOADD, TILELOADDT1
  Fault store(unsigned t, uint8_t* base, int64_t stride);       // TILESTORED
  Fault multiply_bf16(unsigned c, unsigned a, unsigned b);      // TDPBF16PS
  Fault multiply_int8(unsigned c, unsigned a, unsigned b, bool a_signed, bool b_signed);  // TDPB[SU][SU]D

 private:
  Fault usable(unsigned t) const;
  Fault multipliable(unsigned c, unsigned a, unsigned b) const;
  void finish_multiply(unsigned c, unsigned b, unsigned macs_per_dword);
};

// What is wrong with 64 bytes that LDTILECFG is to load.
Fault config_fault(const void* config);

}  // namespace trimoe::emulation
