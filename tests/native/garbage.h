#pragma once

#include <cstdint>

namespace trimoe::test {

// What the next function finds where it puts its local variables. A tile configuration whose stores GCC 12
// has dropped (see amx_config_check.cpp) then cannot look right by chance.
[[gnu::noipa]] inline void fill_stack_with_garbage() {
  volatile uint8_t garbage[16384];
  for (volatile uint8_t& byte : garbage) byte = 0xa5;
}

}  // namespace trimoe::test
