#include "emulation/decode.h"

#include <cstring>

namespace trimoe::emulation {
namespace {

// The fields of VEX C4 and ModRM, extended to four bits where a REX-like bit belongs to them.
struct Fields {
  unsigned prefix;  // 0: none, 1: 66, 2: F3, 3: F2
  unsigned opcode, vvvv, mod, reg, rm;
  bool extend_index, extend_base;
};

// False for anything but the four opcodes of AMX in map 0F38 with W = 0 and L = 0.
bool read_fields(const uint8_t* code, Fields& f) {
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return false;
  f.opcode = code[3];
  if (f.opcode != 0x49 && f.opcode != 0x4b && f.opcode != 0x5c && f.opcode != 0x5e) return false;
  f.prefix = code[2] & 3;
  f.vvvv = (~code[2] >> 3) & 15;
  f.mod = code[4] >> 6;
  f.extend_index = (code[1] & 0x40) == 0;
  f.extend_base = (code[1] & 0x20) == 0;
  f.reg = ((code[4] >> 3) & 7) | ((code[1] & 0x80) == 0 ? 8 : 0);
  f.rm = (code[4] & 7) | (f.extend_base ? 8 : 0);
  return true;
}

bool is_memory(const Fields& f) { return f.mod != 3; }
bool has_sib(const Fields& f) { return is_memory(f) && (f.rm & 7) == 4; }

Operation int8_operation(unsigned prefix) {
  constexpr Operation kByPrefix[] = {Operation::kMultiplyUU, Operation::kMultiplyUS, Operation::kMultiplySU,
                                     Operation::kMultiplySS};
  return kByPrefix[prefix];
}

Operation operation_of(const Fields& f) {
  enum { kNoPrefix, k66, kF3, kF2 };
  switch (f.opcode) {
    case 0x49:
      if (f.vvvv != 0) return Operation::kNotAmx;
      if (is_memory(f) && f.reg == 0 && f.prefix == kNoPrefix) return Operation::kLoadConfig;
      if (is_memory(f) && f.reg == 0 && f.prefix == k66) return Operation::kStoreConfig;
      if (!is_memory(f) && f.rm == 0 && f.prefix == kF2) return Operation::kZero;
      if (!is_memory(f) && f.rm == 0 && f.prefix == kNoPrefix && f.reg == 0) return Operation::kRelease;
      return Operation::kNotAmx;
    case 0x4b:
      // The index register is the stride, so a form without SIB byte is reserved.
      if (f.vvvv != 0 || !has_sib(f) || f.prefix == kNoPrefix) return Operation::kNotAmx;
      return f.prefix == kF3 ? Operation::kStore : Operation::kLoad;
    case 0x5c:
      return !is_memory(f) && f.prefix == kF3 ? Operation::kMultiplyBf16 : Operation::kNotAmx;
    default:
      return is_memory(f) ? Operation::kNotAmx : int8_operation(f.prefix);
  }
}

// Fills address, stride and length of an instruction with a memory operand.
void read_address(const uint8_t* code, const Fields& f, const Registers& registers, Instruction& out) {
  unsigned displacement_bytes = f.mod == 1 ? 1 : f.mod == 2 ? 4 : 0;
  bool from_rip = false;
  if (has_sib(f)) {
    const unsigned sib = code[out.length++];
    const unsigned index = ((sib >> 3) & 7) | (f.extend_index ? 8 : 0);
    const unsigned base = (sib & 7) | (f.extend_base ? 8 : 0);
    out.has_index = index != 4;
    if (out.has_index) out.stride = static_cast<int64_t>(registers.value[index] << (sib >> 6));
    if ((sib & 7) == 5 && f.mod == 0)
      displacement_bytes = 4;
    else
      out.address = registers.value[base];
  } else if ((f.rm & 7) == 5 && f.mod == 0) {
    displacement_bytes = 4;
    from_rip = true;
  } else {
    out.address = registers.value[f.rm];
  }
  int32_t displacement = 0;
  if (displacement_bytes == 1) displacement = (code[out.length] ^ 0x80) - 0x80;  // extends the sign
  if (displacement_bytes == 4) std::memcpy(&displacement, code + out.length, 4);
  out.length += static_cast<uint8_t>(displacement_bytes);
  out.address += static_cast<uint64_t>(int64_t{displacement});
  if (from_rip) out.address += registers.rip + out.length;
}

}  // namespace

const char* mnemonic(Operation operation) {
  constexpr const char* kNames[] = {
      "unknown instruction", "LDTILECFG", "STTILECFG", "TILERELEASE", "TILEZERO", "TILELOADD",
      "TILESTORED",          "TDPBF16PS", "TDPBSSD",   "TDPBSUD",     "TDPBUSD",  "TDPBUUD"};
  static_assert(sizeof kNames / sizeof *kNames == static_cast<unsigned>(Operation::kMultiplyUU) + 1);
  return kNames[static_cast<unsigned>(operation)];
}

Instruction decode(const uint8_t* code, const Registers& registers) {
  Instruction out;
  Fields f{};
  if (!read_fields(code, f)) return out;
  out.operation = operation_of(f);
  if (out.operation == Operation::kNotAmx) return out;
  out.length = 5;
  out.c = static_cast<uint8_t>(f.reg);
  out.a = static_cast<uint8_t>(f.rm);
  out.b = static_cast<uint8_t>(f.vvvv);
  if (!is_memory(f)) return out;
  read_address(code, f, registers, out);
  // For a configuration the index is part of an ordinary address.
  if (f.opcode == 0x49) out.address += static_cast<uint64_t>(out.stride);
  return out;
}

}  // namespace trimoe::emulation
