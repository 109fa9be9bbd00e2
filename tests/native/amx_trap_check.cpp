// What the trap owes the program around the tile instructions. To be run with the trap loaded.
#include <algorithm>
#include <array>
#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include <immintrin.h>

#include "support.h"
#include "tile_code.h"

namespace trimoe::test {
namespace {

Complaints complaints;
alignas(64) std::array<uint8_t, 4096> from, to;

void expect(bool holds, const char* what) {
  if (!holds) complaints.add("%s", what);
}

// `rows` rows of 64 bytes lie at from + from_at with a stride, and should have come to to + to_at.
bool moved(int rows, int from_at, int from_stride, int to_at, int to_stride) {
  for (int r = 0; r < rows; ++r)
    if (std::memcmp(from.data() + from_at + r * from_stride, to.data() + to_at + r * to_stride, 64) != 0)
      return false;
  to.fill(0);
  return true;
}

// Base and index registers of all encodings, displacements of no, one and four bytes, scaled indices.
void addresses() {
  Config config;
  config.set(0, 4, 64);
  load_config(config);
  const uint8_t *in = from.data(), *out = to.data();
  asm volatile(
      "mov %0, %%r13\n mov $64, %%r9\n tileloadd 64(%%r13,%%r9,1), %%tmm0\n"
      "mov %1, %%r12\n mov $32, %%rcx\n tilestored %%tmm0, 0x100(%%r12,%%rcx,2)" ::"r"(in),
      "r"(out)
      : "r9", "r12", "r13", "rcx", "memory");
  expect(moved(4, 64, 64, 256, 64), "r13 + disp8 and r12 + disp32, index times 2");
  asm volatile(
      "mov %0, %%rax\n mov $16, %%r15\n tileloaddt1 (%%rax,%%r15,8), %%tmm0\n"
      "push %%rbp\n mov %1, %%rbp\n mov $-64, %%rbx\n tilestored %%tmm0, 1024(%%rbp,%%rbx,1)\n pop %%rbp" ::
          "r"(in),
      "r"(out)
      : "rax", "rbx", "r15", "memory");
  expect(moved(4, 0, 128, 1024, -64), "rax, index times 8, TILELOADDT1; rbp with a negative stride");
  asm volatile(
      "sub $512, %%rsp\n mov $64, %%r8\n tileloadd (%0,%%r8,1), %%tmm0\n"
      "tilestored %%tmm0, 128(%%rsp,%%r8,1)\n tilezero %%tmm0\n"
      "tileloadd 128(%%rsp,%%r8,1), %%tmm0\n add $512, %%rsp\n tilestored %%tmm0, (%1,%%r8,1)" ::"r"(in +
                                                                                                     640),
      "r"(out)
      : "r8", "memory");
  expect(moved(4, 640, 64, 0, 64), "rsp as base");
}

void registers_survive() {
  load_config(Config::full());
  const __m512 in = _mm512_set1_ps(3.5f);
  __m512 out;
  unsigned mask = 0;
  uint64_t flags = 0;
  asm volatile(
      "vmovaps %3, %%zmm31\n mov $0xbeef, %%eax\n kmovw %%eax, %%k5\n stc\n tilezero %%tmm3\n"
      "pushfq\n pop %2\n kmovw %%k5, %1\n vmovaps %%zmm31, %0"
      : "=v"(out), "=r"(mask), "=r"(flags)
      : "v"(in)
      : "eax", "xmm31", "cc");
  expect(mask == 0xbeef && _mm512_cmpeq_ps_mask(in, out) == 0xffff && (flags & 1),
         "registers survive a trap");
}

// A processor without permission loads configurations by itself; the trap has to notice, also when the same
// one is loaded again.
void configurations_clear() {
  const Config config = Config::full();
  load_config(config);
  load<7>(from.data(), 64);
  store<7>(to.data(), 64);
  expect(moved(16, 0, 64, 0, 64), "a tile is stored as it was loaded");
  load_config(config);
  store<7>(to.data(), 64);
  expect(std::ranges::all_of(to, [](uint8_t x) { return x == 0; }),
         "loading a configuration clears the tiles");
  Config other = Config::full();
  other.set(7, 2, 8);
  load<7>(from.data(), 64);
  release();
  load_config(other);
  load<7>(from.data(), 64);
  store<7>(to.data(), 64);
  expect(std::memcmp(to.data(), from.data(), 8) == 0 && to[8] == 0 && to[2 * 64] == 0,
         "another configuration after a release");
  to.fill(0);
  std::array<uint8_t, 64> last;
  trimoe_amx_trap_last_config(last.data());
  expect(std::memcmp(last.data(), other.byte, 64) == 0, "the last configuration is told");
}

void threads_are_apart() {
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&wrong, i] {
      alignas(64) uint8_t mine[1024], back[1024];
      std::memset(mine, i + 1, sizeof mine);
      for (int repeat = 0; repeat < 50; ++repeat) {
        load_config(Config::full());
        load<0>(mine, 64);
        std::this_thread::yield();
        store<0>(back, 64);
        wrong += std::memcmp(mine, back, sizeof mine) != 0;
        release();
      }
    });
  for (std::thread& thread : threads) thread.join();
  expect(wrong == 0, "each thread has its own tiles");
}

sigjmp_buf escape;

// A program's own handlers come behind the trap, whatever function sets them.
void handlers_come_behind() {
  struct sigaction mine = {}, told = {};
  mine.sa_handler = [](int) { siglongjmp(escape, 1); };
  expect(sigaction(SIGILL, &mine, nullptr) == 0, "sigaction");
  if (sigsetjmp(escape, 1) == 0) {
    asm volatile("ud2");
    expect(false, "the handler gets what is not a tile instruction");
  }
  load_config(Config::full());
  zero<0>();  // still emulated
  expect(sigaction(SIGILL, nullptr, &told) == 0 && told.sa_handler == mine.sa_handler, "and is told back");
  expect(std::signal(SIGILL, SIG_DFL) == mine.sa_handler, "signal() replaces it");
  zero<0>();
  expect(!permitted(), "nobody gets the permission");
}

}  // namespace
}  // namespace trimoe::test

int main() {
  using namespace trimoe::test;
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 7 + i / 64);
  addresses();
  registers_survive();
  configurations_clear();
  threads_are_apart();
  handlers_come_behind();
  const auto counters = trap_counters();
  std::printf("%lu loads, %lu stores, %d failed\n", counters.loads, counters.stores, complaints.count());
  return complaints.count() ? 1 : 0;
}
