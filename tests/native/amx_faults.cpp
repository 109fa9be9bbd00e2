// Violates the rule named by the first argument; then the process should be dead, under the trap as on a
// processor with AMX, where the second argument is --native. Without arguments it prints all names.
#include <cstdio>
#include <cstring>

#include "support.h"
#include "tile_code.h"

namespace trimoe::test {
namespace {

alignas(64) uint8_t memory[4096];

void multiply() { asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); }
// TDPBF16PS tmm0, tmm1, tmm1, which the assembler refuses.
void multiply_by_itself() { asm volatile(".byte 0xc4, 0xe2, 0x72, 0x5c, 0xc1"); }
void multiply_int8() { asm volatile("tdpbssd %tmm2, %tmm1, %tmm0"); }

// C = tile 0 [rows x bytes], A = tile 1, B = tile 2.
void configure(unsigned c_rows, unsigned c_bytes, unsigned a_rows, unsigned a_bytes, unsigned b_rows,
               unsigned b_bytes) {
  Config config;
  config.set(0, c_rows, c_bytes);
  config.set(1, a_rows, a_bytes);
  config.set(2, b_rows, b_bytes);
  load_config(config);
}

void with_byte(int at, uint8_t value) {
  Config config = Config::full();
  config.byte[at] = value;
  load_config(config);
  zero<0>();
}

void start_in_row(uint8_t row) {
  Config config = Config::full();
  config.byte[1] = row;
  load_config(config);
}

constexpr struct {
  const char* name;
  void (*run)();
} kFaults[] = {
    {"no-config", [] { zero<0>(); }},
    {"after-release", [] { load_config(Config::full()), zero<0>(), release(), zero<0>(); }},
    {"after-palette-0", [] { load_config(Config::full()), zero<0>(), load_config(Config{{0}}), zero<0>(); }},
    {"tile-left-out", [] { configure(16, 64, 16, 64, 16, 64), load<5>(memory, 64); }},
    {"palette-2", [] { with_byte(0, 2); }},
    {"reserved", [] { with_byte(9, 1); }},
    {"tile-9", [] { with_byte(48 + 9, 1); }},
    {"rows-17", [] { with_byte(48 + 3, 17); }},
    {"row-bytes-65", [] { with_byte(16 + 2 * 3, 65); }},
    {"row-bytes-0", [] { with_byte(16 + 2 * 3, 0); }},
    {"rows-0", [] { with_byte(48 + 3, 0); }},
    {"start-row", [] { start_in_row(16), load<0>(memory, 64); }},
    {"c-rows", [] { configure(15, 64, 16, 64, 16, 64), multiply(); }},
    {"c-bytes", [] { configure(16, 60, 16, 64, 16, 64), multiply(); }},
    {"depth", [] { configure(16, 64, 16, 64, 15, 64), multiply(); }},
    {"depth-int8", [] { configure(16, 64, 16, 60, 16, 64), multiply_int8(); }},
    {"dwords", [] { configure(16, 62, 16, 64, 16, 62), multiply(); }},
    {"same-tile", [] { load_config(Config::full()), multiply_by_itself(); }},
    {"load-beyond", [] { load_config(Config::full()), load<0>(GuardedBuffer(16 * 64 - 1).data(), 64); }},
    {"store-beyond",
     [] { load_config(Config::full()), zero<0>(), store<0>(GuardedBuffer(16 * 64 - 1).data(), 64); }},
    {"not-amx", [] { asm volatile("ud2"); }},
};

}  // namespace
}  // namespace trimoe::test

int main(int argc, char** argv) {
  if (argc < 2)
    for (const auto& fault : trimoe::test::kFaults) std::printf("%s\n", fault.name);
  if (argc > 2 && !trimoe::test::permitted()) return 77;
  for (const auto& fault : trimoe::test::kFaults)
    if (argc > 1 && std::strcmp(fault.name, argv[1]) == 0) fault.run();
  return 0;
}
