// What this machine can do at most: read bandwidth and multiply-adds per instruction set, from registers.
// Compiled on the machine it measures (-march=native); a C interface for ctypes.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <typename Body>
void on_threads(int threads, const Body& body) {
  std::vector<std::thread> others;
  for (int index = 1; index < threads; ++index) others.emplace_back(body, index);
  body(0);
  for (std::thread& other : others) other.join();
}

// As wide as the registers are; the compiler knows how to multiply and add these.
#if defined(__AVX512F__)
constexpr size_t kVectorBytes = 64;
#elif defined(__AVX__)
constexpr size_t kVectorBytes = 32;
#else
constexpr size_t kVectorBytes = 16;
#endif
using Words [[gnu::vector_size(kVectorBytes)]] = uint64_t;
using Floats [[gnu::vector_size(kVectorBytes)]] = float;

// Four streams, as one alone does not keep enough lines in flight.
Words read_all(const std::byte* data, size_t bytes) {
  constexpr size_t kStreams = 4;
  const size_t stream = bytes / kStreams / kVectorBytes;
  const auto* words = reinterpret_cast<const Words*>(data);
  Words sums[kStreams] = {};
  for (size_t i = 0; i < stream; ++i)
    for (size_t s = 0; s < kStreams; ++s) sums[s] ^= words[s * stream + i];
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

// Ten chains: more than latency times issue rate, fewer than there are registers.
constexpr int kChains = 10;

constexpr int kBatch = 20000;

// A value that the compiler cannot know, and must have in a register.
template <typename Vector>
Vector opaque(Vector value) {
#if defined(__x86_64__)
  asm volatile("" : "+v"(value));
#else
  asm volatile("" : "+w"(value));
#endif
  return value;
}

// Not inlined: no call lies within, or the accumulators would be kept in memory.
template <typename Vector, typename Step, size_t... kChain>
[[gnu::noinline]] void run_batch(Vector first, const Step& step, std::index_sequence<kChain...>) {
  Vector chains[] = {(static_cast<void>(kChain), opaque(first))...};
  for (int i = 0; i < kBatch; ++i) ((chains[kChain] = step(chains[kChain])), ...);
  (static_cast<void>(opaque(chains[kChain])), ...);
}

// Runs `step` on every accumulator in turn until the time is over; returns operations per second.
template <typename Vector, typename Step>
double rate(double seconds, double operations, Vector first, const Step& step) {
  const auto start = Clock::now();
  int64_t batches = 0;
  do {
    run_batch(first, step, std::make_index_sequence<kChains>());
    ++batches;
  } while (seconds_since(start) < seconds);
  return operations * kChains * kBatch * static_cast<double>(batches) / seconds_since(start);
}

double fma_rate(double seconds) {
  Floats factor{};
  factor += 1.0000001F;
  return rate(seconds, 2.0 * sizeof(Floats) / 4, factor,
              [factor](Floats sum) { return sum * factor + factor; });
}

double bf16_dot_rate([[maybe_unused]] double seconds) {
#if defined(__AVX512BF16__)
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  return rate(seconds, 4.0 * 16, _mm512_setzero_ps(),
              [ones](__m512 sum) { return _mm512_dpbf16_ps(sum, ones, ones); });
#else
  return 0.0;
#endif
}

double int8_dot_rate([[maybe_unused]] double seconds) {
#if defined(__AVX512VNNI__)
  const __m512i ones = _mm512_set1_epi8(1);
  return rate(seconds, 8.0 * 16, _mm512_setzero_si512(),
              [ones](__m512i sum) { return _mm512_dpbusd_epi32(sum, ones, ones); });
#elif defined(__AVXVNNI__)
  const __m256i ones = _mm256_set1_epi8(1);
  return rate(seconds, 8.0 * 8, _mm256_setzero_si256(),
              [ones](__m256i sum) { return _mm256_dpbusd_avx_epi32(sum, ones, ones); });
#else
  return 0.0;
#endif
}

#if defined(__AMX_TILE__)
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

constexpr long kRequestPermission = 0x1023, kTileData = 18;

// Four accumulators, as the machine multiplies one tile in 16 cycles and the next may start then.
template <typename Step>
double tile_rate(double seconds, double operations, const Step& step) {
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return 0.0;
  constexpr int kBatch = 2000;
  const TileConfig config;
  asm volatile("ldtilecfg %0" ::"m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  const auto start = Clock::now();
  int64_t batches = 0;
  do {
    for (int i = 0; i < kBatch; ++i) step();
    ++batches;
  } while (seconds_since(start) < seconds);
  const double result = 4 * operations * kBatch * static_cast<double>(batches) / seconds_since(start);
  _tile_release();
  return result;
}
#endif

double amx_bf16_rate([[maybe_unused]] double seconds) {
#if defined(__AMX_BF16__)
  return tile_rate(seconds, 2.0 * 16 * 16 * 32, [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  });
#else
  return 0.0;
#endif
}

double amx_int8_rate([[maybe_unused]] double seconds) {
#if defined(__AMX_INT8__)
  return tile_rate(seconds, 2.0 * 16 * 16 * 64, [] {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  });
#else
  return 0.0;
#endif
}

struct Buffer {
  std::byte* data = nullptr;
  size_t bytes = 0;
} buffer;

}  // namespace

extern "C" {

// Memory to read from, touched by the threads that will read it; 0, or -1 where there is too little.
int limits_allocate(int64_t bytes, int threads) {
  void* data =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return -1;
  madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  buffer = {static_cast<std::byte*>(data), static_cast<size_t>(bytes)};
  const size_t share = buffer.bytes / static_cast<size_t>(threads);
  on_threads(threads, [share](int index) { std::memset(buffer.data + share * index, 1, share); });
  return 0;
}

// GB/s (1e9) of one pass over the memory.
double limits_read_gbps(int threads) {
  const size_t share = buffer.bytes / static_cast<size_t>(threads) / 4096 * 4096;
  std::vector<Words> sums(static_cast<size_t>(threads));
  const auto start = Clock::now();
  on_threads(threads, [&](int index) {
    sums[static_cast<size_t>(index)] = read_all(buffer.data + share * static_cast<size_t>(index), share);
  });
  const double seconds = seconds_since(start);
  asm volatile("" ::"r"(sums.data()) : "memory");
  return static_cast<double>(share) * threads / seconds * 1e-9;
}

// 1e9 operations per second, a multiply-add counting as two; 0 where the machine lacks the instruction.
// kind: 0 fp32 FMA, 1 bf16 dot product, 2 int8 dot product, 3 bf16 tiles, 4 int8 tiles.
double limits_peak_gops(int kind, double seconds, int threads) {
  using Rate = double (*)(double);
  constexpr Rate kRates[] = {fma_rate, bf16_dot_rate, int8_dot_rate, amx_bf16_rate, amx_int8_rate};
  std::vector<double> rates(static_cast<size_t>(threads));
  on_threads(threads, [&](int index) { rates[static_cast<size_t>(index)] = kRates[kind](seconds); });
  double sum = 0.0;
  for (double one : rates) sum += one;
  return sum * 1e-9;
}

}  // extern "C"
