#include "ndp/dimm/descriptor.h"

#include <array>

namespace trimoe::ndp {
namespace {

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0);
    table[byte] = value;
  }
  return table;
}();

}  // namespace

uint32_t crc32c(const void* data, size_t bytes) {
  uint32_t value = ~uint32_t{0};
  const auto* from = static_cast<const uint8_t*>(data);
  for (size_t i = 0; i < bytes; ++i) value = value >> 8 ^ kTable[(value ^ from[i]) & 0xff];
  return ~value;
}

void seal(Descriptor& descriptor) { descriptor.crc32c = crc32c(&descriptor, offsetof(Descriptor, crc32c)); }

bool is_intact(const Descriptor& descriptor) {
  return descriptor.crc32c == crc32c(&descriptor, offsetof(Descriptor, crc32c));
}

}  // namespace trimoe::ndp
