// What a DIMM knows of an expert: its shape, how its numbers are stored, and where its bytes lie.
#pragma once

#include <cstddef>
#include <vector>

#include "ndp/core/core.h"
#include "ndp/dimm/descriptor.h"
#include "packed/expert_shape.h"

namespace trimoe::ndp {

// A part of an expert's bytes: address as remote() makes it.
struct Piece {
  uint64_t address = 0;
  int64_t bytes = 0;
};

// Localized: one piece, on the DIMM that has the slot. Striped: pieces on many DIMMs, in order; a DIMM that
// runs the expert gathers them over the link, and the host reads it from all channels at once.
struct ExpertSlot {
  ExpertShape shape;
  Number number = Number::kBf16;
  std::vector<Piece> pieces;

  bool is_localized(int dimm) const { return pieces.size() == 1 && dimm_of(pieces[0].address) == dimm; }
};

// The 64 bytes that follow a CFG_EXPERT descriptor, the pieces of a striped expert behind them; the CRC of
// both is in its stride.
struct ExpertConfig {
  uint32_t hidden = 0, inter = 0;
  uint16_t group = 0;
  uint8_t activation = 0, gated = 1, bias = 0;
  uint8_t reserved8[3] = {};
  float alpha = 1.702f, limit = 7.0f;
  uint8_t reserved[40] = {};
};
static_assert(sizeof(ExpertConfig) == 64);
std::vector<std::byte> config_payload(const ExpertSlot& slot);

}  // namespace trimoe::ndp
