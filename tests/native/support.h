// What the native test programs share: memory that ends where it says, random values, complaints.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "emulation/trap.h"

// Null unless the trap is loaded.
extern "C" [[gnu::weak]] void trimoe_amx_trap_counters(trimoe::emulation::Counters* total);
extern "C" [[gnu::weak]] void trimoe_amx_trap_last_config(void* to);

namespace trimoe::test {

// The last byte is followed by a page without access, so that a read or write beyond it ends the program.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t whole = (bytes + page - 1) / page * page;
    mapped_bytes_ = whole + page;
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* first = static_cast<std::byte*>(mapped_);
    if (mapped_ == MAP_FAILED || mprotect(first + whole, page, PROT_NONE) != 0) std::abort();
    data_ = first + whole - bytes;
  }
  ~GuardedBuffer() { munmap(mapped_, mapped_bytes_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  std::byte* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void* mapped_;
  size_t mapped_bytes_;
  std::byte* data_;
};

// Counts complaints, prints the first few.
class Complaints {
 public:
  static constexpr int kShown = 10;

  template <typename... Args>
  void add(const char* format, Args... args) {
    if (++count_ > kShown) return;
    std::printf("FAIL ");
    std::printf(format, args...);
    std::printf("\n");
  }
  int count() const { return count_; }

 private:
  int count_ = 0;
};

// Asks Linux for tile data; false where it or the processor has none. What follows is not emulated.
inline bool permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

inline emulation::Counters trap_counters() {
  emulation::Counters counters{};
  if (trimoe_amx_trap_counters) trimoe_amx_trap_counters(&counters);
  return counters;
}

}  // namespace trimoe::test
