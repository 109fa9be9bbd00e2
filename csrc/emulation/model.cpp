#include "emulation/model.h"

#include <cstring>
#include <initializer_list>

#include <immintrin.h>

namespace trimoe::emulation {
namespace {

// Layout of the 64 bytes of a configuration.
constexpr unsigned kStartRowAt = 1, kRowBytesAt = 16, kRowsAt = 48;

Fault invalid_opcode(const char* rule) { return {Fault::kInvalidOpcode, rule}; }
Fault general_protection(const char* rule) { return {Fault::kGeneralProtection, rule}; }

bool splits_line(const uint8_t* row, unsigned bytes) {
  return (reinterpret_cast<uintptr_t>(row) % 64) + bytes > 64;
}

// One row of TDPBF16PS: C += (sum over even k) + (sum over odd k), each sum from +0 by one fused
// multiply-add per k. Runs with MXCSR as the instruction behaves: nearest even, subnormals are zero.
// Not inlined, so that no arithmetic moves across the change of MXCSR.
[[gnu::noinline, gnu::target("avx2,fma")]] void multiply_row_bf16(Tile& c, const Tile& a, const Tile& b,
                                                                  unsigned row, unsigned pairs) {
  float even[16] = {}, odd[16] = {};
  uint32_t a_pair[16], b_pair[16];
  std::memcpy(a_pair, a.row[row], sizeof a_pair);
  for (unsigned k = 0; k < pairs; ++k) {
    std::memcpy(b_pair, b.row[k], sizeof b_pair);
    const float a_even = __builtin_bit_cast(float, a_pair[k] << 16);
    const float a_odd = __builtin_bit_cast(float, a_pair[k] & 0xffff0000u);
    for (unsigned j = 0; j < 16; ++j) {
      even[j] = __builtin_fmaf(a_even, __builtin_bit_cast(float, b_pair[j] << 16), even[j]);
      odd[j] = __builtin_fmaf(a_odd, __builtin_bit_cast(float, b_pair[j] & 0xffff0000u), odd[j]);
    }
  }
  float sum[16];
  std::memcpy(sum, c.row[row], sizeof sum);
  for (unsigned j = 0; j < 16; ++j) sum[j] += even[j] + odd[j];
  std::memcpy(c.row[row], sum, sizeof sum);
}

template <typename A, typename B>
void multiply_row_int8(Tile& c, const Tile& a, const Tile& b, unsigned row, unsigned quads) {
  uint32_t sum[16];  // wraps modulo 2^32, does not saturate
  std::memcpy(sum, c.row[row], sizeof sum);
  for (unsigned k = 0; k < quads; ++k)
    for (unsigned i = 0; i < 4; ++i) {
      const A factor = static_cast<A>(a.row[row][4 * k + i]);
      for (unsigned j = 0; j < 16; ++j)
        sum[j] += static_cast<uint32_t>(factor * static_cast<B>(b.row[k][4 * j + i]));
    }
  std::memcpy(c.row[row], sum, sizeof sum);
}

}  // namespace

Fault config_fault(const void* config) {
  uint8_t byte[kConfigBytes];
  std::memcpy(byte, config, sizeof byte);
  if (byte[0] == 0) return {};
  if (byte[0] != 1) return general_protection("the palette is neither 0 nor 1");
  for (unsigned i = 2; i < kRowBytesAt; ++i)
    if (byte[i]) return general_protection("reserved bytes 2 to 15 are not 0");
  for (unsigned t = 0; t < 16; ++t) {
    uint16_t row_bytes = 0;
    std::memcpy(&row_bytes, byte + kRowBytesAt + 2 * t, 2);
    const uint8_t rows = byte[kRowsAt + t];
    if (t >= kTiles && (row_bytes || rows)) return general_protection("a tile above 7 is configured");
    if (row_bytes > kMaxRowBytes) return general_protection("a tile has more than 64 bytes a row");
    if (rows > kMaxTileRows) return general_protection("a tile has more than 16 rows");
    if ((row_bytes == 0) != (rows == 0))
      return general_protection("a tile has rows of 0 bytes, or 0 rows of some bytes");
  }
  return {};
}

Fault TileUnit::load_config(const void* from) {
  if (const Fault fault = config_fault(from); fault.raised()) return fault;
  uint8_t byte[kConfigBytes];
  std::memcpy(byte, from, sizeof byte);
  ++counters.configs;
  std::memset(tile, 0, sizeof tile);
  palette = byte[0];
  start_row = palette ? byte[kStartRowAt] : 0;
  std::memset(row_bytes, 0, sizeof row_bytes);
  std::memset(rows, 0, sizeof rows);
  if (palette) {
    std::memcpy(row_bytes, byte + kRowBytesAt, sizeof row_bytes);
    std::memcpy(rows, byte + kRowsAt, sizeof rows);
  }
  return {};
}

void TileUnit::store_config(void* to) const {
  uint8_t byte[kConfigBytes] = {palette, start_row};
  std::memcpy(byte + kRowBytesAt, row_bytes, sizeof row_bytes);
  std::memcpy(byte + kRowsAt, rows, sizeof rows);
  std::memcpy(to, byte, sizeof byte);
}

void TileUnit::release() {
  const Counters kept = counters;
  *this = TileUnit{};
  counters = kept;
  ++counters.releases;
}

Fault TileUnit::usable(unsigned t) const {
  if (!configured()) return invalid_opcode("no tile configuration is loaded");
  if (t >= kTiles) return invalid_opcode("there is no such tile");
  if (rows[t] == 0) return invalid_opcode("the configuration leaves this tile out");
  return {};
}

Fault TileUnit::zero(unsigned t) {
  if (const Fault fault = usable(t); fault.raised()) return fault;
  tile[t] = Tile{};
  start_row = 0;
  ++counters.zeros;
  return {};
}

Fault TileUnit::load(unsigned t, const uint8_t* base, int64_t stride) {
  if (const Fault fault = usable(t); fault.raised()) return fault;
  if (start_row >= rows[t]) return invalid_opcode("start_row is beyond the rows of the tile");
  for (unsigned r = start_row; r < rows[t]; ++r) {
    const uint8_t* from = base + r * stride;
    std::memcpy(tile[t].row[r], from, row_bytes[t]);
    std::memset(tile[t].row[r] + row_bytes[t], 0, kMaxRowBytes - row_bytes[t]);
    counters.load_split_rows += splits_line(from, row_bytes[t]);
  }
  counters.load_rows += rows[t] - start_row;
  ++counters.loads;
  std::memset(tile[t].row[rows[t]], 0, (kMaxTileRows - rows[t]) * kMaxRowBytes);
  start_row = 0;
  return {};
}

Fault TileUnit::store(unsigned t, uint8_t* base, int64_t stride) {
  if (const Fault fault = usable(t); fault.raised()) return fault;
  if (start_row >= rows[t]) return invalid_opcode("start_row is beyond the rows of the tile");
  for (unsigned r = start_row; r < rows[t]; ++r) {
    std::memcpy(base + r * stride, tile[t].row[r], row_bytes[t]);
    counters.store_split_rows += splits_line(base + r * stride, row_bytes[t]);
  }
  counters.store_rows += rows[t] - start_row;
  ++counters.stores;
  start_row = 0;
  return {};
}

Fault TileUnit::multipliable(unsigned c, unsigned a, unsigned b) const {
  if (c == a || c == b || a == b) return invalid_opcode("the three tiles must differ");
  for (const unsigned t : {c, a, b})
    if (const Fault fault = usable(t); fault.raised()) return fault;
  for (const unsigned t : {c, a, b})
    if (row_bytes[t] % 4 != 0) return invalid_opcode("bytes a row are not a multiple of 4");
  if (rows[c] != rows[a]) return invalid_opcode("C and A have different numbers of rows");
  if (row_bytes[c] != row_bytes[b]) return invalid_opcode("C and B have rows of different lengths");
  if (row_bytes[a] / 4 != rows[b]) return invalid_opcode("A has not as many dwords a row as B has rows");
  return {};
}

void TileUnit::finish_multiply(unsigned c, unsigned b, unsigned macs_per_dword) {
  for (unsigned r = 0; r < rows[c]; ++r)
    std::memset(tile[c].row[r] + row_bytes[c], 0, kMaxRowBytes - row_bytes[c]);
  std::memset(tile[c].row[rows[c]], 0, (kMaxTileRows - rows[c]) * kMaxRowBytes);
  start_row = 0;
  counters.multiply_rows += rows[c];
  counters.macs += uint64_t{rows[c]} * (row_bytes[c] / 4) * rows[b] * macs_per_dword;
}

Fault TileUnit::multiply_bf16(unsigned c, unsigned a, unsigned b) {
  if (const Fault fault = multipliable(c, a, b); fault.raised()) return fault;
  constexpr unsigned kFlushSubnormals = 0x8040, kExceptionsMasked = 0x1f80;
  const unsigned before = _mm_getcsr();
  _mm_setcsr(kExceptionsMasked | kFlushSubnormals);
  for (unsigned r = 0; r < rows[c]; ++r) multiply_row_bf16(tile[c], tile[a], tile[b], r, rows[b]);
  _mm_setcsr(before);
  finish_multiply(c, b, 2);
  ++counters.multiplies_bf16;
  return {};
}

Fault TileUnit::multiply_int8(unsigned c, unsigned a, unsigned b, bool a_signed, bool b_signed) {
  if (const Fault fault = multipliable(c, a, b); fault.raised()) return fault;
  const auto multiply_row =
      a_signed ? (b_signed ? multiply_row_int8<int8_t, int8_t> : multiply_row_int8<int8_t, uint8_t>)
               : (b_signed ? multiply_row_int8<uint8_t, int8_t> : multiply_row_int8<uint8_t, uint8_t>);
  for (unsigned r = 0; r < rows[c]; ++r) multiply_row(tile[c], tile[a], tile[b], r, rows[b]);
  finish_multiply(c, b, 4);
  ++counters.multiplies_int8;
  return {};
}

}  // namespace trimoe::emulation
