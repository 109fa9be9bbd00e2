// The tile configurations that arrive from shipped code, called on a stack full of garbage.
//
// GCC 12 believes that LDTILECFG reads 8 bytes of its 64 and drops the stores to the others, so that what
// was on the stack arrives. amx/tile.h prevents that; this program shows that it does, and with the argument
// "unguarded" that without it the configuration is lost. To be run with the trap loaded.
//
// Exit code 1: another configuration has arrived (a bad enough one is a fault). "compiler" prints which one
// has built this.
#include <array>
#include <cstring>

#include "amx/kernels.h"
#include "amx_unguarded.h"
#include "garbage.h"
#include "support.h"
#include "tile_code.h"

namespace trimoe::test {
namespace {

void expect_config(const Config& expected, const char* from, Complaints& complaints) {
  zero<0>();  // the first instruction that the trap sees where LDTILECFG does not fault
  std::array<uint8_t, 64> arrived;
  trimoe_amx_trap_last_config(arrived.data());
  for (int at = 0; at < 64; ++at)
    if (arrived[at] != expected.byte[at])
      return complaints.add("%s: byte %d of the configuration is %d, not %d", from, at, arrived[at],
                            expected.byte[at]);
}

void check_unguarded(Complaints& complaints) {
  Config expected;
  for (unsigned tile = 0; tile < 8; ++tile) expected.set(tile, 5, 64);
  fill_stack_with_garbage();
  load_config_unguarded(5);
  expect_config(expected, "unguarded", complaints);
}

void check_kernels(Complaints& complaints) {
  fill_stack_with_garbage();
  amx::enter();
  expect_config(Config::full(), "enter", complaints);
  amx::leave();
}

}  // namespace
}  // namespace trimoe::test

int main(int argc, char** argv) {
  using namespace trimoe::test;
  const char* what = argc > 1 ? argv[1] : "";
  if (std::strcmp(what, "compiler") == 0) {
#ifdef __clang__
    std::printf("Clang %d\n", __clang_major__);
#else
    std::printf("GCC %d\n", __GNUC__);
#endif
    return 0;
  }
  Complaints complaints;
  std::strcmp(what, "unguarded") == 0 ? check_unguarded(complaints) : check_kernels(complaints);
  return complaints.count() ? 1 : 0;
}
