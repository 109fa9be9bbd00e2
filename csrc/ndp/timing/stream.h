// The weights of an expert as one sub-channel of one rank delivers them, refreshes included. The core never
// holds this stream back, so one simulation serves every core and every number of tokens.
#pragma once

#include <memory>
#include <vector>

#include "ndp/dram/controller.h"
#include "ndp/dram/traffic.h"

namespace trimoe::ndp {

// Bursts that follow each other as closely as the data bus lets them, nBL clocks apart.
struct Run {
  int64_t first_end;  // clock behind the data of the first
  int64_t bursts;
};

// The three matrices once: gate and up, then down.
struct StreamPass {
  std::vector<Run> gate_up, down;
  int64_t reads = 0, activates = 0, refreshes = 0;
};

// The simulation itself, pass after pass. Copies go on from where the original is.
class WeightStream {
 public:
  WeightStream(const DramSpec& spec, int64_t matrix_bursts)
      : matrix_bursts_(matrix_bursts), controller_(spec, 1, {}), traffic_(spec, 1, Pattern::kStream, 1) {}

  StreamPass next();

 private:
  std::vector<Run> phase(int64_t bursts);

  int64_t matrix_bursts_;
  Controller controller_;
  Traffic traffic_;
};

// Of dram_specs() itself, so that its address says what it is. A copy may be changed or gone tomorrow.
bool is_listed(const DramSpec& spec);

// The passes of a stream, one after the other: remembered ones first, then simulated. The passes are the same
// whatever is remembered. Of a listed speed grade, what is simulated is kept for whoever asks next, from any
// thread; beyond the room there is for that, every reader simulates for itself.
class PassReader {
 public:
  PassReader(const DramSpec& spec, int64_t matrix_bursts);
  std::shared_ptr<const StreamPass> next();

 private:
  std::shared_ptr<class KeptPasses> kept_;    // null: nothing is remembered of this stream
  std::unique_ptr<WeightStream> simulation_;  // from where the remembered passes end
  size_t passes_ = 0;
};

// Forgets all streams; from now on keeps so many bytes of them, 32 MiB at first. Returns how many it was. An
// expert of 47 MB on four ranks takes 1.7 KB a pass.
int64_t keep_streams(int64_t max_bytes);

}  // namespace trimoe::ndp
