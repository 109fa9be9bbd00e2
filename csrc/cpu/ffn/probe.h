// What the machine can do at best, measured: the roofline that every figure is printed against.
#pragma once

#include <cstdint>

#include "packed/format.h"

namespace trimoe::cpu {

// Reads `bytes` of memory `repeats` times with `threads` threads, four streams each; writes one
// GB/s per repeat. `bytes` should be several times the last-level cache.
void probe_bandwidth(int64_t bytes, int repeats, int threads, double* gbps);

// Runs the selected kernel's gemm on operands that stay in the first-level cache for about
// `seconds` per repeat on `threads` threads; writes one GFLOP/s per repeat. This is the rate of the
// instruction mix that the kernel really issues, register-blocked as it is: the compute roof. int4 is
// probed with rows in 8 bits.
void probe_flops(WeightFormat weights, double seconds, int repeats, int threads, double* gflops);

// The core's clock under light load, for the cycle model; 0 where the processor is no x86-64.
double probe_clock_ghz();

}  // namespace trimoe::cpu
