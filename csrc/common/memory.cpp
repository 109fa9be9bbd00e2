#include "common/memory.h"

#include <string>
#include <utility>

#include <sys/mman.h>

namespace trimoe {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

NoMemory::NoMemory(size_t bytes)
    : line_("trimoe: expected " + std::to_string(bytes) +
            " bytes of memory; got none; try fewer tokens in a call, or a smaller layer") {}

PageBuffer::PageBuffer(size_t bytes) {
  if (bytes == 0) return;
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* mapping = ::mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw NoMemory(bytes);
  auto address = reinterpret_cast<uintptr_t>(mapping);
  if (slack) address = (address + kHugePage - 1) & ~(kHugePage - 1);
  mapping_ = mapping;
  mapping_bytes_ = bytes + slack;
  data_ = reinterpret_cast<std::byte*>(address);
  bytes_ = bytes;
  // A hint: without huge pages the result is the same, only slower.
  if (slack) ::madvise(data_, bytes, MADV_HUGEPAGE);
}

PageBuffer::~PageBuffer() {
  if (mapping_) ::munmap(mapping_, mapping_bytes_);
}

PageBuffer::PageBuffer(PageBuffer&& other) noexcept { swap(other); }

PageBuffer& PageBuffer::operator=(PageBuffer&& other) noexcept {
  swap(other);
  return *this;
}

std::byte* PageBuffer::reserve(size_t bytes) {
  if (bytes > bytes_) {
    *this = PageBuffer();
    *this = PageBuffer(bytes);
  }
  return data_;
}

void PageBuffer::swap(PageBuffer& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
}

}  // namespace trimoe
