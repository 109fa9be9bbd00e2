#include "common/env.h"

#include <cstdlib>

namespace trimoe::env {

std::string cpu_isa() {
  const char* value = std::getenv("TRIMOE_CPU_ISA");
  return value ? value : "";
}

}  // namespace trimoe::env
