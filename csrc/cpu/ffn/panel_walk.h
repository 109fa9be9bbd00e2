// Rows of A times some panels of one matrix, in gemm calls, with the weights of later calls fetched
// while one computes.
#pragma once

#include <algorithm>

#include "common/memory.h"
#include "cpu/ffn/tiling.h"
#include "cpu/kernel/kernel.h"
#include "packed/layout.h"

namespace trimoe::cpu {

// The kernel's state on this thread (AMX: its tiles), for as long as it lives.
class KernelRegion {
 public:
  explicit KernelRegion(const Kernel& kernel) : kernel_(kernel) {
    if (kernel_.enter) kernel_.enter();
  }
  ~KernelRegion() {
    if (kernel_.leave) kernel_.leave();
  }
  KernelRegion(const KernelRegion&) = delete;
  KernelRegion& operator=(const KernelRegion&) = delete;

 private:
  const Kernel& kernel_;
};

struct PanelRun {
  const std::byte* first = nullptr;  // panel
  int64_t panels = 0;

  MemoryRange range(const PackedMatrix& matrix) const {
    return {first, first + panels * matrix.panel_bytes()};
  }
};

inline constexpr int64_t kPanelResults = (kMaxRows + kRowSlack) * kPanelCols;  // of one gemm call

inline float* walk_results(int64_t panels) {
  thread_local PageBuffer buffer;
  return reinterpret_cast<float*>(buffer.reserve(static_cast<size_t>(panels * kPanelResults * 4)));
}

// At most kWalkRows rows: see walk_panels().
template <typename Finish>
void walk_rows(const Kernel& kernel, const PackedMatrix& matrix, const PanelRun& run,
               const PanelRun& following, const std::byte* a, int64_t stride, int64_t rows,
               const Finish& finish) {
  const WalkTiling tiling = walk_tiling(kernel, matrix, rows, stride, run.panels);
  const int64_t tiles = tiling.row_tiles, k_step = tiling.k_tiles, at_once = tiling.panels;
  const int64_t group = tiling.panels_a_call;
  const bool whole = !tiling.cuts_k(matrix);
  float* results = walk_results(whole ? kMaxPanels : at_once * tiles);
  const auto piece = [&](int64_t panel, int64_t k) {
    if (panel >= run.panels || k >= matrix.k_tiles) return MemoryRange();
    const std::byte* begin = run.first + panel * matrix.panel_bytes() + k * 2 * kTileBytes;
    return MemoryRange{begin, begin + std::min(k_step, matrix.k_tiles - k) * 2 * kTileBytes};
  };
  FetchCursor next(run.range(matrix), following.range(matrix)), nothing;
  for (int64_t first = 0; first < run.panels; first += at_once) {
    const int64_t end = std::min(first + at_once, run.panels);
    for (int64_t k = 0; k < matrix.k_tiles; k += k_step)
      for (int64_t panel = first; panel < end; panel += group) {
        if (!whole)
          next = {piece(panel, k), panel + 1 < end ? piece(panel + 1, k) : piece(first, k + k_step)};
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const int64_t row = rows * tile / tiles;
          GemmArgs gemm = gemm_on(matrix);
          gemm.rows = static_cast<int>(rows * (tile + 1) / tiles - row);
          gemm.a = a + row * stride;
          gemm.a_stride = stride;
          gemm.w = run.first + panel * matrix.panel_bytes();
          gemm.k_begin = k;
          gemm.k_end = std::min(k + k_step, matrix.k_tiles);
          gemm.panels = static_cast<int>(std::min(group, end - panel));
          gemm.c_stride = gemm.panels * kPanelCols;
          gemm.c = whole ? results : results + ((panel - first) * tiles + tile) * kPanelResults;
          // As much is fetched as is read; the row tiles after the first read from the cache.
          gemm.next = group == 1 && tile == 0 ? &next : &nothing;
          kernel.gemm(gemm);
          if (gemm.k_end == matrix.k_tiles) finish(row, gemm, panel);
        }
      }
  }
}

// finish(first row, gemm, panel) takes each result while it is in the cache. `following` is what this
// thread will read next, or empty.
template <typename Finish>
void walk_panels(const Kernel& kernel, const PackedMatrix& matrix, const PanelRun& run,
                 const PanelRun& following, const std::byte* a, int64_t stride, int64_t rows,
                 const Finish& finish) {
  const int64_t blocks = ceil_div(rows, kWalkRows);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = rows * block / blocks, end = rows * (block + 1) / blocks;
    walk_rows(kernel, matrix, run, block + 1 < blocks ? run : following, a + first * stride, stride,
              end - first,
              [&](int64_t row, const GemmArgs& gemm, int64_t panel) { finish(first + row, gemm, panel); });
  }
}

}  // namespace trimoe::cpu
