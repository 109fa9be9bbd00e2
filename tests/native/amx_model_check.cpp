// The software model of the tile unit against the processor's own, instruction by instruction, bit by bit.
// Only where the processor gives a NaN the model may give another: with several NaN operands it is up to the
// compiler of the model which one comes out. Needs a processor with AMX: exit code 77 where there is none.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "emulation/model.h"
#include "support.h"
#include "tile_code.h"

namespace trimoe::test {
namespace {

constexpr int kRepeats = 4000;

enum Multiply { kBf16, kSS, kSU, kUS, kUU, kMultiplies };
constexpr const char* kNames[] = {"TDPBF16PS", "TDPBSSD", "TDPBSUD", "TDPBUSD", "TDPBUUD"};

// Tile 0 is C, 1 is A, 2 is B.
void multiply_natively(Multiply multiply) {
  switch (multiply) {
    case kBf16:
      asm volatile("tdpbf16ps %tmm2, %tmm1, %tmm0");
      break;
    case kSS:
      asm volatile("tdpbssd %tmm2, %tmm1, %tmm0");
      break;
    case kSU:
      asm volatile("tdpbsud %tmm2, %tmm1, %tmm0");
      break;
    case kUS:
      asm volatile("tdpbusd %tmm2, %tmm1, %tmm0");
      break;
    default:
      asm volatile("tdpbuud %tmm2, %tmm1, %tmm0");
  }
}

emulation::Fault multiply_in_model(emulation::TileUnit& unit, Multiply multiply) {
  if (multiply == kBf16) return unit.multiply_bf16(0, 1, 2);
  return unit.multiply_int8(0, 1, 2, multiply == kSS || multiply == kSU, multiply == kSS || multiply == kUS);
}

using Memory = std::array<uint8_t, 16 * 80>;

// What of 16 bf16 numbers is any pattern of bits, NaN and infinite ones included, and the exponents of the
// others. Those of the last kind have products around the smallest normal number.
struct Kind {
  unsigned any, exponent, exponents;
};
constexpr Kind kKinds[] = {{0, 96, 64}, {1, 96, 64}, {4, 96, 64}, {16, 0, 1}, {0, 60, 6}};

void fill(Memory& memory, std::mt19937& random, bool floats, const Kind& kind) {
  for (size_t i = 0; i < memory.size(); i += 4) {
    auto bits = static_cast<uint32_t>(random());
    if (floats) {
      const auto ordinary = [&](uint32_t half) {
        return (half & 0x807fu) | (kind.exponent + (half >> 7) % kind.exponents) << 7;
      };
      if (random() % 16 >= kind.any) bits = (bits & 0xffff0000u) | ordinary(bits & 0xffffu);
      if (random() % 16 >= kind.any) bits = (bits & 0xffffu) | ordinary(bits >> 16) << 16;
    }
    std::memcpy(memory.data() + i, &bits, 4);
  }
}

struct Trial {
  Config config;
  Memory c, a, b;
  int64_t stride[3];
  Multiply multiply;
};

Trial make_trial(std::mt19937& random) {
  const auto one_to = [&](unsigned last) { return 1 + static_cast<unsigned>(random() % last); };
  const unsigned rows = one_to(16), depth = one_to(16), columns = one_to(16);
  Trial trial;
  trial.config.set(0, rows, 4 * columns);
  trial.config.set(1, rows, 4 * depth);
  trial.config.set(2, depth, 4 * columns);
  trial.multiply = static_cast<Multiply>(random() % kMultiplies);
  for (int64_t& stride : trial.stride) stride = 64 + 4 * static_cast<int64_t>(random() % 5);
  const bool floats = trial.multiply == kBf16;
  const Kind& kind = kKinds[random() % std::size(kKinds)];
  fill(trial.c, random, floats, kind);
  fill(trial.a, random, floats, kind);
  fill(trial.b, random, floats, kind);
  return trial;
}

Memory run_natively(const Trial& trial) {
  Memory out = {};
  load_config(trial.config);
  load<0>(trial.c.data(), trial.stride[0]);
  load<1>(trial.a.data(), trial.stride[1]);
  load<2>(trial.b.data(), trial.stride[2]);
  multiply_natively(trial.multiply);
  store<0>(out.data(), trial.stride[0]);
  release();
  return out;
}

Memory run_in_model(const Trial& trial, Complaints& complaints) {
  Memory out = {};
  static emulation::TileUnit unit;
  const emulation::Fault faults[] = {
      unit.load_config(trial.config.byte),           unit.load(0, trial.c.data(), trial.stride[0]),
      unit.load(1, trial.a.data(), trial.stride[1]), unit.load(2, trial.b.data(), trial.stride[2]),
      multiply_in_model(unit, trial.multiply),       unit.store(0, out.data(), trial.stride[0]),
  };
  for (const auto& fault : faults)
    if (fault.raised()) complaints.add("%s: the model raises: %s", kNames[trial.multiply], fault.rule);
  unit.release();
  return out;
}

}  // namespace
}  // namespace trimoe::test

int main() {
  using namespace trimoe::test;
  if (!permitted()) return 77;
  Complaints complaints;
  std::mt19937 random(1);
  std::array<int, kMultiplies> trials = {};
  for (int i = 0; i < kRepeats; ++i) {
    const Trial trial = make_trial(random);
    const Memory native = run_natively(trial), model = run_in_model(trial, complaints);
    ++trials[trial.multiply];
    for (size_t at = 0; at < native.size(); at += 4) {
      uint32_t is = 0, should = 0;
      std::memcpy(&is, model.data() + at, 4);
      std::memcpy(&should, native.data() + at, 4);
      const bool nan = trial.multiply == kBf16 && std::isnan(std::bit_cast<float>(is)) &&
                       std::isnan(std::bit_cast<float>(should));
      if (is != should && !nan) {
        complaints.add("%s, trial %d: %08x in the model, %08x in the processor", kNames[trial.multiply], i,
                       is, should);
        break;
      }
    }
  }
  for (int i = 0; i < kMultiplies; ++i) std::printf("%s %d, ", kNames[i], trials[i]);
  std::printf("%d differ\n", complaints.count());
  return complaints.count() ? 1 : 0;
}
