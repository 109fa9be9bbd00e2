#include "emulation/threads.h"

#include <atomic>
#include <new>

#include <sys/mman.h>

namespace trimoe::emulation {
namespace {

std::atomic<ThreadTiles*> all_threads = nullptr;

// A pointer in the initial TLS block: reading it allocates nothing, as a signal handler needs. The pages
// stay after the thread has ended, because its counters do.
[[gnu::tls_model("initial-exec")]] thread_local ThreadTiles* mine = nullptr;

ThreadTiles* make() {
  void* pages =
      mmap(nullptr, sizeof(ThreadTiles), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  auto* made = new (pages) ThreadTiles{};
  made->next = all_threads.load();
  while (!all_threads.compare_exchange_weak(made->next, made)) {
  }
  return made;
}

}  // namespace

ThreadTiles& thread_tiles() {
  if (mine == nullptr) mine = make();
  return *mine;
}

Counters counters_of_all_threads() {
  Counters total{};
  for (const ThreadTiles* one = all_threads.load(); one != nullptr; one = one->next) {
    const Counters& add = one->unit.counters;
    total.configs += add.configs;
    total.releases += add.releases;
    total.zeros += add.zeros;
    total.loads += add.loads;
    total.stores += add.stores;
    total.multiplies_bf16 += add.multiplies_bf16;
    total.multiplies_int8 += add.multiplies_int8;
    total.multiply_rows += add.multiply_rows;
    total.macs += add.macs;
    total.load_rows += add.load_rows;
    total.load_split_rows += add.load_split_rows;
    total.store_rows += add.store_rows;
    total.store_split_rows += add.store_split_rows;
    total.loads_without_index += add.loads_without_index;
  }
  return total;
}

}  // namespace trimoe::emulation
