// Page-backed memory: zero-filled, 2 MiB aligned when large so that the kernel can use huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

namespace trimoe {

// A MemoryError in Python, with a line that says how much it was.
class NoMemory final : public std::bad_alloc {
 public:
  explicit NoMemory(size_t bytes);
  const char* what() const noexcept override { return line_.c_str(); }

 private:
  std::string line_;
};

class PageBuffer {
 public:
  PageBuffer() = default;
  explicit PageBuffer(size_t bytes);  // throws NoMemory
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
