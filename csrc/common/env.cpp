#include "common/env.h"

#include <cstdlib>

namespace trimoe::env {

namespace {

std::string value_of(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::string cpu_isa() { return value_of("TRIMOE_CPU_ISA"); }

bool amx_emulated() {
  const std::string value = value_of("TRIMOE_AMX_EMULATED");
  return !value.empty() && value != "0";
}

std::string numa_fake() { return value_of("TRIMOE_NUMA_FAKE"); }

}  // namespace trimoe::env
