#include "cpu/ffn/probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "common/memory.h"
#include "common/own_threads.h"
#include "cpu/dispatch/kernel_table.h"
#include "cpu/ffn/panel_walk.h"
#include "packed/layout.h"

namespace trimoe::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Four streams, as one stream alone does not keep enough lines in flight.
uint64_t read_all(const std::byte* data, int64_t bytes) {
  constexpr int64_t kStreams = 4, kWords = 8;
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  const int64_t stream = bytes / 8 / kStreams;
  uint64_t sums[kStreams][kWords] = {};
  for (int64_t i = 0; i + kWords <= stream; i += kWords)
    for (int64_t s = 0; s < kStreams; ++s)
      for (int64_t w = 0; w < kWords; ++w) sums[s][w] ^= words[s * stream + i + w];
  uint64_t sum = 0;
  for (const auto& row : sums)
    for (uint64_t word : row) sum ^= word;
  return sum;
}

}  // namespace

void probe_bandwidth(int64_t bytes, int repeats, int threads, double* gbps) {
  PageBuffer buffer(static_cast<size_t>(bytes));
  const int64_t share = bytes / threads / 4096 * 4096;
  // Touched first by the thread that reads it: on several nodes, each reads its own memory.
  on_own_threads(
      threads, [&](int index) { std::memset(buffer.data() + index * share, 1, static_cast<size_t>(share)); });
  std::vector<uint64_t> sums(static_cast<size_t>(threads));  // keeps the reads alive
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto start = Clock::now();
    on_own_threads(threads, [&](int index) {
      sums[static_cast<size_t>(index)] ^= read_all(buffer.data() + index * share, share);
    });
    gbps[repeat] = static_cast<double>(share * threads) / seconds_since(start) * 1e-9;
  }
}

void probe_flops(WeightFormat weights, double seconds, int repeats, int threads, double* gflops) {
  const Kernel& kernel = selected_entry().kernel(weights.format, true);
  const int64_t k = 4 * k_per_tile(weights.format);  // a panel of 8 KiB: resident in any first-level cache
  const PackedMatrix matrix(weights, 1, k);
  const RowShape shape{matrix.k_padded, matrix.groups, weights.group, facts(weights.format).zero};
  const int64_t stride = row_bytes(kernel.a, shape) + kLineBytes;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<double> rates(static_cast<size_t>(threads));
    on_own_threads(threads, [&](int index) {
      PageBuffer w(static_cast<size_t>(matrix.bytes())),
          a(static_cast<size_t>((kernel.max_rows + kRowSlack) * stride)),
          c(static_cast<size_t>((kernel.max_rows + kRowSlack) * kPanelCols * 4));
      GemmArgs gemm = gemm_on(matrix);
      gemm.a = a.data();
      gemm.a_stride = stride;
      gemm.rows = kernel.max_rows;
      gemm.w = w.data();
      gemm.panels = 1;
      gemm.c = reinterpret_cast<float*>(c.data());
      gemm.c_stride = kPanelCols;
      FetchCursor nothing;
      gemm.next = &nothing;
      const KernelRegion region(kernel);
      const auto start = Clock::now();
      int64_t calls = 0;
      do {
        for (int i = 0; i < 64; ++i) kernel.gemm(gemm);
        calls += 64;
      } while (seconds_since(start) < seconds);
      rates[static_cast<size_t>(index)] = 2.0 * kernel.max_rows * kPanelCols *
                                          static_cast<double>(matrix.k_padded * calls) /
                                          seconds_since(start) * 1e-9;
    });
    gflops[repeat] = 0.0;
    for (double rate : rates) gflops[repeat] += rate;
  }
}

double probe_clock_ghz() {
  double best = 0;
#if defined(__x86_64__)
  constexpr int kMultiplies = 4'000'000, kLatency = 3;  // of a 64-bit multiply, on every x86-64 since 2008
  for (int repeat = 0; repeat < 5; ++repeat) {
    uint64_t value = 3;
    const auto start = Clock::now();
    for (int i = 0; i < kMultiplies; i += 4)
      asm volatile("imul %0, %0\n imul %0, %0\n imul %0, %0\n imul %0, %0" : "+r"(value));
    best = std::max(best, kMultiplies * kLatency / seconds_since(start) * 1e-9);
  }
#endif
  return best;
}

}  // namespace trimoe::cpu
