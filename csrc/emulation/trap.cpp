#include "emulation/trap.h"

#include <cstdio>
#include <cstring>

#include <dlfcn.h>
#include <unistd.h>

#include "emulation/decode.h"
#include "emulation/signal_frame.h"
#include "emulation/threads.h"

namespace trimoe::emulation {
namespace {

// What the program has set, or believes to have set, for the signals that the trap holds.
struct sigaction next_illegal = {}, next_segment = {};
bool installed = false;

struct sigaction* next_action(int signal) {
  return signal == SIGILL ? &next_illegal : signal == SIGSEGV ? &next_segment : nullptr;
}

bool has_handler(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) ||
         (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);  // neither helps against a fault
}

// Gives a signal to whoever would have had it; without a handler the process dies of it here.
void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction next = *next_action(signal);
  if (!has_handler(next)) {
    struct sigaction die = {};
    die.sa_handler = SIG_DFL;
    system_sigaction(signal, &die, nullptr);
    raise(signal);
  } else if (next.sa_flags & SA_SIGINFO) {
    next.sa_sigaction(signal, info, context);
  } else {
    next.sa_handler(signal);
  }
}

// One line. The process is about to die at this very instruction, so that functions which are not meant
// for signal handlers may be used: no lock of theirs is held by code that executes tile instructions.
void report(const char* fault, uint64_t rip, const Instruction& instruction, const char* rule) {
  char tiles[32] = "";
  if (instruction.operation >= Operation::kMultiplyBf16)
    std::snprintf(tiles, sizeof tiles, " tmm%d, tmm%d, tmm%d", instruction.c, instruction.a, instruction.b);
  else if (instruction.operation >= Operation::kZero)
    std::snprintf(tiles, sizeof tiles, " tmm%d", instruction.c);
  Dl_info where{};
  const bool named = dladdr(reinterpret_cast<void*>(rip), &where) != 0 && where.dli_sname != nullptr;
  char line[512];
  const int length = std::snprintf(line, sizeof line, "trimoe amx trap: %s: %s%s: %s; at %#lx in %s\n", fault,
                                   mnemonic(instruction.operation), tiles, rule,
                                   static_cast<unsigned long>(rip), named ? where.dli_sname : "?");
  [[maybe_unused]] const auto written = write(STDERR_FILENO, line, static_cast<size_t>(length));
}

Fault execute(ThreadTiles& thread, const Instruction& i) {
  TileUnit& unit = thread.unit;
  auto* address = reinterpret_cast<uint8_t*>(i.address);
  switch (i.operation) {
    case Operation::kLoadConfig: {
      const Fault fault = unit.load_config(address);
      if (!fault.raised()) unit.store_config(thread.last_config);
      return fault;
    }
    case Operation::kStoreConfig:
      unit.store_config(address);
      return {};
    case Operation::kRelease:
      unit.release();
      return {};
    case Operation::kZero:
      return unit.zero(i.c);
    case Operation::kLoad:
      unit.counters.loads_without_index += !i.has_index;
      return unit.load(i.c, address, i.stride);
    case Operation::kStore:
      return unit.store(i.c, address, i.stride);
    case Operation::kMultiplyBf16:
      return unit.multiply_bf16(i.c, i.a, i.b);
    case Operation::kMultiplySS:
      return unit.multiply_int8(i.c, i.a, i.b, true, true);
    case Operation::kMultiplySU:
      return unit.multiply_int8(i.c, i.a, i.b, true, false);
    case Operation::kMultiplyUS:
      return unit.multiply_int8(i.c, i.a, i.b, false, true);
    case Operation::kMultiplyUU:
      return unit.multiply_int8(i.c, i.a, i.b, false, false);
    case Operation::kNotAmx:
      break;
  }
  return {Fault::kInvalidOpcode, "not of AMX-TILE, AMX-BF16 or AMX-INT8"};
}

// Executes the AMX instruction at the interrupted place and those that follow it directly, which saves
// their traps. Returns the fault of the one that it stopped at, if that is the first or raised one.
Fault run(ThreadTiles& thread, Registers& registers, Instruction& stopped_at) {
  for (bool first = true;; first = false) {
    const Instruction instruction = decode(reinterpret_cast<const uint8_t*>(registers.rip), registers);
    if (instruction.operation == Operation::kNotAmx && !first) return {};
    stopped_at = instruction;
    thread.executing = &stopped_at;
    thread.executing_at = registers.rip;
    const Fault fault = execute(thread, instruction);
    thread.executing = nullptr;
    if (fault.raised()) return fault;
    registers.rip += instruction.length;
  }
}

void on_illegal(int signal, siginfo_t* info, void* context) {
  if (info->si_code <= 0) return pass_on(signal, info, context);  // sent by a process
  SignalFrame frame(context);
  ThreadTiles& thread = thread_tiles();
  if (frame.pull_config(thread.unit)) thread.unit.store_config(thread.last_config);
  Registers registers = frame.registers();
  Instruction stopped_at;
  const Fault fault = run(thread, registers, stopped_at);
  frame.push_config(thread.unit);
  frame.set_rip(registers.rip);
  if (!fault.raised()) return;
  if (stopped_at.operation != Operation::kNotAmx || !has_handler(next_illegal))
    report(fault.kind == Fault::kInvalidOpcode ? "#UD" : "#GP", registers.rip, stopped_at, fault.rule);
  pass_on(fault.kind == Fault::kInvalidOpcode ? SIGILL : SIGSEGV, info, context);
}

// Adds the line to two cases: the emulated instruction touched memory that it may not, and the processor
// itself has refused a configuration (see SignalFrame::pull_config).
void on_segment(int signal, siginfo_t* info, void* context) {
  ThreadTiles& thread = thread_tiles();
  const Registers registers = SignalFrame(context).registers();
  if (info->si_code > 0 && thread.executing != nullptr) {
    char rule[64];
    std::snprintf(rule, sizeof rule, "no access to memory at %p", info->si_addr);
    report("#PF", thread.executing_at, *thread.executing, rule);
    thread.executing = nullptr;
  } else if (info->si_code == SI_KERNEL) {
    const Instruction instruction = decode(reinterpret_cast<const uint8_t*>(registers.rip), registers);
    if (instruction.operation == Operation::kLoadConfig) {
      const Fault fault = config_fault(reinterpret_cast<const void*>(instruction.address));
      if (fault.raised()) report("#GP", registers.rip, instruction, fault.rule);
    }
  }
  pass_on(signal, info, context);
}

}  // namespace

int system_sigaction(int signal, const struct sigaction* action, struct sigaction* previous) {
  using Function = int (*)(int, const struct sigaction*, struct sigaction*);
  static const auto function = [] {
    void* behind = dlsym(RTLD_NEXT, "sigaction");
    return reinterpret_cast<Function>(behind ? behind : dlsym(RTLD_DEFAULT, "sigaction"));
  }();
  return function(signal, action, previous);
}

void install_trap() {
  if (installed) return;
  locate_tile_config();
  struct sigaction action = {};
  // A handler that is passed a signal may leave by longjmp, or raise it again.
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  action.sa_sigaction = on_illegal;
  system_sigaction(SIGILL, &action, &next_illegal);
  action.sa_sigaction = on_segment;
  system_sigaction(SIGSEGV, &action, &next_segment);
  installed = true;
}

bool replace_next_action(int signal, const struct sigaction* next, struct sigaction* previous) {
  struct sigaction* held = next_action(signal);
  if (held == nullptr || !installed) return false;
  const struct sigaction before = *held;
  if (next != nullptr) *held = *next;
  if (previous != nullptr) *previous = before;
  return true;
}

}  // namespace trimoe::emulation

int trimoe_amx_trap_installed() { return trimoe::emulation::installed ? 1 : 0; }

void trimoe_amx_trap_counters(trimoe::emulation::Counters* total) {
  *total = trimoe::emulation::counters_of_all_threads();
}

void trimoe_amx_trap_last_config(void* to) {
  std::memcpy(to, trimoe::emulation::thread_tiles().last_config, trimoe::emulation::kConfigBytes);
}
