// AMX machine code -> what to execute.
#pragma once

#include <cstdint>

namespace trimoe::emulation {

// General registers in the order of their encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15.
struct Registers {
  uint64_t value[16];
  uint64_t rip;
};

enum class Operation : uint8_t {
  kNotAmx,  // or a form that the manual reserves
  kLoadConfig,
  kStoreConfig,
  kRelease,
  kZero,
  kLoad,
  kStore,
  kMultiplyBf16,
  kMultiplySS,  // signed A, signed B
  kMultiplySU,
  kMultiplyUS,
  kMultiplyUU,
};

const char* mnemonic(Operation operation);

struct Instruction {
  Operation operation = Operation::kNotAmx;
  uint8_t length = 0;  // bytes
  uint8_t c = 0;       // the tile of a load, store or zero; C of a multiply
  uint8_t a = 0, b = 0;
  bool has_index = false;  // the address names an index register
  uint64_t address = 0;    // without the index where that is the stride
  int64_t stride = 0;      // bytes from row to row of a tile load or store
};

// The AMX instruction at `code`, its address computed from the registers. Reads no further than the
// instruction reaches.
Instruction decode(const uint8_t* code, const Registers& registers);

}  // namespace trimoe::emulation
