// Page-backed memory: zero-filled, 2 MiB aligned when large so that the kernel can use huge pages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trimoe {

class PageBuffer {
 public:
  PageBuffer() = default;
  explicit PageBuffer(size_t bytes);
  ~PageBuffer();
  PageBuffer(PageBuffer&& other) noexcept;
  PageBuffer& operator=(PageBuffer&& other) noexcept;

  std::byte* data() const { return data_; }
  size_t size() const { return bytes_; }

  // Grows to at least `bytes`; the contents are lost, the pages are reused when they suffice.
  std::byte* reserve(size_t bytes);

 private:
  void swap(PageBuffer& other) noexcept;

  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace trimoe
