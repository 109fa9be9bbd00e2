// What a sub-channel does under load: bandwidth and latency, simulated.
#pragma once

#include "ndp/dram/controller.h"
#include "ndp/dram/traffic.h"

namespace trimoe::ndp {

struct BandwidthCase {
  Pattern pattern = Pattern::kStream;
  int read_pct = 100;
  int ranks = 1;
  int64_t bursts = 200'000;
  uint64_t seed = 1;
  ControllerOptions options;
};

struct BandwidthResult {
  double gbps;
  int64_t reads, writes, activates, precharges, refreshes;
};

// The queues are always full. `log`: gets every command, if it is not null.
BandwidthResult measure_bandwidth(const DramSpec& spec, const BandwidthCase& one,
                                  std::vector<Issued>* log = nullptr);

// Mean nanoseconds from arrival to the end of the data, one request at a time.
double idle_hit_ns(const DramSpec& spec);
double idle_conflict_ns(const DramSpec& spec);

struct LoadedResult {
  double gbps;        // background and probes
  double latency_ns;  // of the probes, mean
};

// A stream of so many GB/s (0: as fast as it goes), and random reads, one at a time, among it.
LoadedResult measure_loaded_latency(const DramSpec& spec, double background_gbps, int probes,
                                    const ControllerOptions& options, uint64_t seed = 1);

}  // namespace trimoe::ndp
