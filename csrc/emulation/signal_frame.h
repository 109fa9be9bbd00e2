// The interrupted thread as a signal handler sees it: general registers and the tile configuration
// register, which a processor with AMX saves in the frame.
#pragma once

#include <cstdint>

#include <ucontext.h>

#include "emulation/decode.h"
#include "emulation/model.h"

namespace trimoe::emulation {

class SignalFrame {
 public:
  explicit SignalFrame(void* context);

  Registers registers() const;
  void set_rip(uint64_t rip);

  // Brings the model up to date with what the processor executed by itself, and back.
  //
  // Measured on Linux 6.18, Sapphire Rapids: in a process without the permission for tile data,
  // LDTILECFG, STTILECFG and TILERELEASE do not fault; TILEZERO, loads, stores and multiplies do. So on
  // such a processor the configuration is found in the frame, not in a trapped instruction. What this
  // writes back carries a mark in start_row: no mark at the next trap means that the program has loaded a
  // configuration or released the tiles in between, even if it loaded the same again, which clears the
  // tiles. (A native STTILECFG stores the mark with the rest.)
  // Pulling tells whether a configuration came with it.
  bool pull_config(TileUnit& tiles) const;
  void push_config(const TileUnit& tiles);

 private:
  uint8_t* xsave_header() const;
  uint8_t* tile_config() const;  // null where the processor has none: there every instruction traps

  ucontext_t& context_;
};

// Asks CPUID where frames keep the tile configuration; to be called before the first frame.
void locate_tile_config();

}  // namespace trimoe::emulation
