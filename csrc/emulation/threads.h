// One model of a tile unit for each thread.
#pragma once

#include "emulation/decode.h"
#include "emulation/model.h"

namespace trimoe::emulation {

struct ThreadTiles {
  TileUnit unit;
  uint8_t last_config[kConfigBytes];
  // What is being executed, for the report of a fault inside it; null between instructions.
  const Instruction* executing;
  uint64_t executing_at;
  ThreadTiles* next;
};

// Of the calling thread; made at its first use, which may be in a signal handler.
ThreadTiles& thread_tiles();

Counters counters_of_all_threads();

}  // namespace trimoe::emulation
