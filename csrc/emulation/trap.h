// AMX without AMX: catches the signal that a tile instruction raises where the processor, or the kernel
// for want of permission, refuses it; executes the instruction on the software model; and goes on behind
// it. All other instructions run natively. What is run is the very object code that ships.
//
// A violated rule is reported in one line on standard error, and the process dies of the signal that a
// processor with AMX would have caused.
#pragma once

#include <csignal>

#include "emulation/model.h"

namespace trimoe::emulation {

// For the whole process, threads to come included. Safe to call twice.
void install_trap();

// sigaction(2) itself, whatever the preloaded library puts in front of it.
int system_sigaction(int signal, const struct sigaction* action, struct sigaction* previous);

// Stands in for sigaction(2) on the two signals that the trap holds: `next` is called for what is not
// its business. False: not one of them.
bool replace_next_action(int signal, const struct sigaction* next, struct sigaction* previous);

}  // namespace trimoe::emulation

// Found by name with dlsym or as weak symbols by code that must not depend on the trap.
extern "C" {
[[gnu::visibility("default")]] int trimoe_amx_trap_installed();
// Sum over all threads, finished ones included.
[[gnu::visibility("default")]] void trimoe_amx_trap_counters(trimoe::emulation::Counters* total);
// The 64 bytes that LDTILECFG loaded last in this thread, whether or not they were released since.
[[gnu::visibility("default")]] void trimoe_amx_trap_last_config(void* to);
}
