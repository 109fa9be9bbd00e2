// What the machine can do at best, measured once in a process, and results held against it.
#pragma once

#include <benchmark/benchmark.h>

#include "packed/format.h"

namespace trimoe::bench {

// GB/s (1e9) of reading memory with so many threads.
double read_gbps(int threads);

// GFLOP/s of the selected entry's kernel on operands in the first-level cache.
double peak_gflops(WeightFormat weights, int threads);

// Clock of this core while it computes, in GHz; 0 where it cannot be measured.
double clock_ghz();

// Work of one iteration.
struct Work {
  double flops = 0;
  double weight_bytes = 0;
};

// Counters: GFLOP/s and GB/s, each with its share of the limit, and the share of the roofline: of the limit
// that is the tighter one for this work. Limits of 0 are left out.
void report(benchmark::State& state, const Work& work, double peak_gflops, double read_gbps);

// The main() of every program. Refuses what the core refuses, in one line, with exit status 2.
int run(int argc, char** argv, void (*register_all)());

}  // namespace trimoe::bench
