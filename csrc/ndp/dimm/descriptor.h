// What the host writes to a DIMM: one descriptor of 64 bytes is one write burst on one sub-channel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trimoe::ndp {

enum class Opcode : uint8_t {
  kNop,
  kModeSet,
  kCfgExpert,
  kActBcast,
  kGemmGu,
  kSiluMul,
  kGemmDn,
  kReduce,
  kExpertFfn,
  kResRead,
  kCopyRank,
  kLinkSend,
  kLinkRecv,
  kRelayout,
  kMigrate,
  kStatus,
  kIrq,
  kAbort,
  kReset,
  kCount
};
inline constexpr int kOpcodes = static_cast<int>(Opcode::kCount);

enum Flag : uint8_t {
  kIrqWhenDone = 1 << 0,
  kFenceBefore = 1 << 1,  // waits for all that came before
  kAccumulate = 1 << 2,   // REDUCE: adds to the result that is there
  kAllRanks = 1 << 3,     // ACT_BCAST: whatever the rank mask says
  kLastInBatch = 1 << 6,  // an error skips what follows, up to here
  kWideResult = 1 << 7,   // RES_READ: fp32 instead of bf16
};
inline constexpr int kNumberShift = 4;  // bits 4 and 5: the type of the weights

struct Descriptor {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint16_t tag = 0;  // of the completion; 0: none waits for it
  uint8_t rank_mask = 0;
  uint8_t subch_mask = 3;
  uint16_t tokens = 0;
  uint32_t slot = 0;
  uint16_t rows_16 = 0, cols_16 = 0;  // of the matrix, over 16; 0: as the slot says
  uint64_t weight_addr = 0;           // in the DIMM
  uint32_t buf_in = 0, buf_out = 0;   // offsets in the buffer of a rank
  uint64_t dst_addr = 0;              // in the DIMM, or of another one: see remote()
  uint32_t bytes = 0;
  uint32_t stride = 0;
  float scale = 1.0f;
  uint16_t dep_tag = 0;  // starts when that one is complete; 0: none
  uint16_t reserved16 = 0;
  uint32_t reserved32 = 0;
  uint32_t crc32c = 0;  // of the 60 bytes before

  bool has(Flag flag) const { return (flags & flag) != 0; }
};
static_assert(sizeof(Descriptor) == 64 && offsetof(Descriptor, weight_addr) == 16 &&
              offsetof(Descriptor, dst_addr) == 32 && offsetof(Descriptor, scale) == 48 &&
              offsetof(Descriptor, crc32c) == 60);

// An address on another DIMM: its number in the upper byte.
constexpr uint64_t remote(int dimm, uint64_t address) { return static_cast<uint64_t>(dimm) << 56 | address; }
constexpr int dimm_of(uint64_t address) { return static_cast<int>(address >> 56); }
constexpr uint64_t local_of(uint64_t address) { return address & ((uint64_t{1} << 56) - 1); }

// The Castagnoli polynomial, reflected, as iSCSI and SSE4.2 have it.
uint32_t crc32c(const void* data, size_t bytes);
void seal(Descriptor& descriptor);
bool is_intact(const Descriptor& descriptor);

}  // namespace trimoe::ndp
