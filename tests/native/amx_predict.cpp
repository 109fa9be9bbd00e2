// The cycle model as a filter: lines of "format group int8_rows rows k panels bytes_per_cycle" -> lines of
// "peak_cycles compute_cycles memory_cycles cycles".
#include <cstdio>
#include <cstring>

#include "amx/cycles.h"

// Some of it by hand: 64 steps of 32 k at 4 * 21 + 0.18 * 64 + 2 cycles, one block.
static_assert(trimoe::amx::predict({trimoe::Format::kBf16, false, 32, 2048, 1}, 0).peak_cycles == 4096);
static_assert(trimoe::amx::predict({trimoe::Format::kBf16, false, 32, 2048, 1}, 0).cycles ==
              64 * (84 + 0.18 * 64 + 2) + 120);

int main() {
  char name[16];
  int group = 0, int8_rows = 0;
  long rows = 0, k = 0, panels = 0;
  double bytes_per_cycle = 0;
  while (std::scanf("%15s %d %d %ld %ld %ld %lf", name, &group, &int8_rows, &rows, &k, &panels,
                    &bytes_per_cycle) == 7) {
    trimoe::amx::GemmCase one;
    for (int format = 0; format < trimoe::kFormats; ++format)
      if (trimoe::kFormatFacts[static_cast<size_t>(format)].name == name)
        one.weights = trimoe::WeightFormat(static_cast<trimoe::Format>(format), group);
    one.int8_rows = int8_rows != 0;
    one.rows = rows;
    one.k = k;
    one.panels = panels;
    const auto found = trimoe::amx::predict(one, bytes_per_cycle);
    std::printf("%.17g %.17g %.17g %.17g\n", found.peak_cycles, found.compute_cycles, found.memory_cycles,
                found.cycles);
  }
  return 0;
}
