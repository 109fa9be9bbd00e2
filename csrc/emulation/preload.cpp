// What makes the trap work for a program that does not know of it: it is installed before main, stays
// installed, and nobody gets the permission that would let the tile instructions past it.
#include <cerrno>
#include <cstdarg>

#include <sys/syscall.h>
#include <unistd.h>

#include "emulation/trap.h"

namespace {

constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl; <asm/prctl.h> of Linux 5.16

[[gnu::constructor]] void install_before_main() { trimoe::emulation::install_trap(); }

long system_call(long number, const long (&argument)[6]) {
  long result = 0;
  register long r10 asm("r10") = argument[3];
  register long r8 asm("r8") = argument[4];
  register long r9 asm("r9") = argument[5];
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(argument[0]), "S"(argument[1]), "d"(argument[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace

extern "C" {

// Python's faulthandler, which pytest turns on, takes SIGILL and SIGSEGV; it comes behind the trap.
[[gnu::visibility("default")]] int sigaction(int signal, const struct sigaction* action,
                                             struct sigaction* previous) noexcept {
  if (trimoe::emulation::replace_next_action(signal, action, previous)) return 0;
  return trimoe::emulation::system_sigaction(signal, action, previous);
}

[[gnu::visibility("default")]] sighandler_t signal(int signal, sighandler_t handler) noexcept {
  struct sigaction action = {}, previous = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  if (sigaction(signal, &action, &previous) != 0) return SIG_ERR;
  return previous.sa_handler;
}

// oneDNN inside torch asks for tile data by this function, as trimoe does. A process that has the
// permission executes tiles natively, and there is no way to give it back.
[[gnu::visibility("default")]] long syscall(long number, ...) noexcept {
  long argument[6];
  va_list list;
  va_start(list, number);
  for (long& one : argument) one = va_arg(list, long);
  va_end(list);
  const bool for_tiles =
      number == SYS_arch_prctl && argument[0] == kRequestPermission && argument[1] == kTileData;
  const long result = for_tiles ? -EPERM : system_call(number, argument);
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}
}
