#include "emulation/signal_frame.h"

#include <cstring>

#include <cpuid.h>

namespace trimoe::emulation {
namespace {

constexpr unsigned kTileConfigState = 17;  // bit of XCR0, and CPUID leaf 0xD's subleaf
constexpr uint8_t kSeen = 0x80;            // in start_row, which is below 16 in any program's configuration
constexpr unsigned kStartRowAt = 1;
// The frame starts with the 512 bytes of FXSAVE, whose end Linux uses to describe the rest; see
// struct _fpx_sw_bytes in <asm/sigcontext.h>, which cannot be included beside <ucontext.h>.
constexpr unsigned kDescriptionAt = 464, kHeaderAt = 512;
constexpr uint32_t kExtendedMagic = 0x46505853;

unsigned tile_config_at = 0;  // offset in the frame; 0: this processor has no such register

int register_index(unsigned encoding) {
  constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return kOrder[encoding];
}

}  // namespace

void locate_tile_config() {
  unsigned size = 0, offset = 0, c = 0, d = 0;
  __get_cpuid_count(0xd, kTileConfigState, &size, &offset, &c, &d);  // zeros where there is none
  tile_config_at = size == kConfigBytes ? offset : 0;
}

SignalFrame::SignalFrame(void* context) : context_(*static_cast<ucontext_t*>(context)) {}

Registers SignalFrame::registers() const {
  Registers out{};
  for (unsigned i = 0; i < 16; ++i)
    out.value[i] = static_cast<uint64_t>(context_.uc_mcontext.gregs[register_index(i)]);
  out.rip = static_cast<uint64_t>(context_.uc_mcontext.gregs[REG_RIP]);
  return out;
}

void SignalFrame::set_rip(uint64_t rip) { context_.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(rip); }

uint8_t* SignalFrame::xsave_header() const {
  return reinterpret_cast<uint8_t*>(context_.uc_mcontext.fpregs) + kHeaderAt;
}

uint8_t* SignalFrame::tile_config() const {
  auto* frame = reinterpret_cast<uint8_t*>(context_.uc_mcontext.fpregs);
  struct {
    uint32_t magic, extended_bytes;
    uint64_t states;
    uint32_t state_bytes;
  } description{};
  if (tile_config_at == 0 || frame == nullptr) return nullptr;
  std::memcpy(&description, frame + kDescriptionAt, sizeof description);
  const bool held = description.magic == kExtendedMagic && ((description.states >> kTileConfigState) & 1u) &&
                    description.state_bytes >= tile_config_at + kConfigBytes;
  return held ? frame + tile_config_at : nullptr;
}

bool SignalFrame::pull_config(TileUnit& tiles) const {
  const uint8_t* register_bytes = tile_config();
  if (register_bytes == nullptr) return false;
  uint64_t in_use = 0;
  std::memcpy(&in_use, xsave_header(), sizeof in_use);
  if (((in_use >> kTileConfigState) & 1u) == 0) {
    if (tiles.configured()) tiles.release();
    return false;
  }
  uint8_t config[kConfigBytes];
  std::memcpy(config, register_bytes, sizeof config);
  if (config[kStartRowAt] == kSeen) {
    if (tiles.configured()) return false;
    config[kStartRowAt] = 0;  // a new thread has inherited the register, but not the tiles
  }
  return !tiles.load_config(config).raised();
}

void SignalFrame::push_config(const TileUnit& tiles) {
  uint8_t* config = tile_config();
  if (config == nullptr) return;
  uint64_t in_use = 0;
  std::memcpy(&in_use, xsave_header(), sizeof in_use);
  if (tiles.configured()) {
    in_use |= uint64_t{1} << kTileConfigState;
    tiles.store_config(config);
    config[kStartRowAt] = kSeen;
  } else {
    in_use &= ~(uint64_t{1} << kTileConfigState);
  }
  std::memcpy(xsave_header(), &in_use, sizeof in_use);
}

}  // namespace trimoe::emulation
