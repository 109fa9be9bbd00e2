// Brings the weights that come next into the cache while the present ones are multiplied.
//
// By loads, not by prefetch instructions: those turned out to do nothing for a gemm that waits for
// memory (Sapphire Rapids, measured: 10 GB/s with any of them and without, 15 with loads, where plain
// reading reaches 23). The loads walk through several pages at once, because a hardware prefetcher
// follows a stream only to the end of its page.
//
// Included by code that is compiled once per instruction set, hence the unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "packed/layout.h"

namespace trimoe {

inline constexpr int kStreams = 8;
inline constexpr int64_t kStreamBytes = 4096;                // a page
inline constexpr int64_t kFetchedTogether = 2 * kLineBytes;  // processors fetch lines in pairs
inline constexpr int64_t kWindowBytes = kStreams * kStreamBytes;
inline constexpr int kWindowRows = kStreamBytes / kFetchedTogether;
static_assert(2 * kStreams * kFetchedTogether == 2 * kTileBytes);  // two rows make up one k tile of a panel

struct MemoryRange {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
};

// Walks memory window by window; a row is one pair of lines in every stream of a window. What is left
// behind the last whole window is not fetched.
struct FetchCursor {
  const std::byte* row = nullptr;  // null: nothing is left
  const std::byte* end = nullptr;  // of the memory that is being fetched
  MemoryRange then;                // its first window comes after that
  int rows_left = 0;               // in this window

  FetchCursor() = default;
  // Starts at the second window of `range`: the first one comes too late to be fetched ahead.
  FetchCursor(MemoryRange range, MemoryRange following) : end(range.end), then(following) {
    open(range.end - range.begin > kWindowBytes ? range.begin + kWindowBytes : nullptr);
  }

  void open(const std::byte* window) {
    if (window == nullptr || end - window < kWindowBytes) {
      window = then.end - then.begin < kWindowBytes ? nullptr : then.begin;
      end = window ? window + kWindowBytes : nullptr;
      then = {};
    }
    row = window;
    rows_left = kWindowRows;
  }
};

namespace {

// Streams kFirst .. kFirst + kCount - 1 of the kRow-th row from here.
template <int kRow, int kFirst, int kCount>
[[gnu::always_inline]] inline void fetch(const std::byte* row) {
  for (int stream = kFirst; stream < kFirst + kCount; ++stream)
    static_cast<void>(
        *reinterpret_cast<const volatile int32_t*>(row + kRow * kFetchedTogether + stream * kStreamBytes));
}

[[gnu::always_inline]] inline void advance(FetchCursor& cursor, int rows) {
  cursor.row += rows * kFetchedTogether;
  cursor.rows_left -= rows;
  if (cursor.rows_left <= 0) cursor.open(cursor.row - kStreamBytes + kWindowBytes);
}

}  // namespace
}  // namespace trimoe
