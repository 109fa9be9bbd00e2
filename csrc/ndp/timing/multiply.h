// The core beside a stream: a burst is multiplied when it is there and the burst before it is done.
#pragma once

#include "ndp/timing/stream.h"

namespace trimoe::ndp {

struct Pace {
  double clock_ns;     // of the stream
  int clocks_apart;    // bursts of a run
  double multiply_ns;  // of one burst
};

// When the last burst of the run is done, after what was done at `done_ns`: to the last bit what
//   done = max(done, end of the burst) + multiply_ns
// gives burst by burst, in a time that does not grow with the run.
double multiply_run(double done_ns, const Run& run, const Pace& pace);

}  // namespace trimoe::ndp
