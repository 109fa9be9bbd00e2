// Rows of A times some panels of one matrix, in gemm calls, with the weights of later calls fetched
// while one computes.
#pragma once

#include <algorithm>

#include "common/kernel.h"
#include "common/layout.h"

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

// finish(first row, gemm, panel) takes each result while it is in the cache. `following` is what this
// thread will read next, or empty.
template <typename Finish>
void walk_panels(const Kernel& kernel, const PackedMatrix& matrix, const PanelRun& run,
                 const PanelRun& following, const std::byte* a, int64_t stride, int64_t rows,
                 const Finish& finish) {
  alignas(64) thread_local float c[(kMaxRows + kRowSlack) * kPanelCols];
  const int64_t tiles = ceil_div(rows, int64_t{kernel.max_rows});
  FetchCursor next(run.range(matrix), following.range(matrix)), nothing;
  const int64_t group = rows <= kernel.few_rows ? kMaxPanels : 1;
  for (int64_t panel = 0; panel < run.panels; panel += group)
    for (int64_t tile = 0, row = 0; tile < tiles; ++tile) {
      GemmArgs gemm{};
      gemm.rows = static_cast<int>((rows - row) / (tiles - tile));
      gemm.a = a + row * stride;
      gemm.a_stride = stride;
      gemm.w = run.first + panel * matrix.panel_bytes();
      gemm.panel_bytes = matrix.panel_bytes();
      gemm.k_tiles = matrix.k_tiles;
      gemm.group_lines = matrix.group_lines;
      gemm.panels = static_cast<int>(std::min(group, run.panels - panel));
      gemm.c = c;
      gemm.c_stride = gemm.panels * kPanelCols;
      // As much is fetched as is read; the row tiles after the first read from the cache.
      gemm.next = group == 1 && tile == 0 ? &next : &nothing;
      kernel.gemm(gemm);
      finish(row, gemm, panel);
      row += gemm.rows;
    }
}

}  // namespace trimoe::cpu
