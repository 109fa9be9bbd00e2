// One thread, one packed matrix: the gemms of the selected entry as the expert FFN calls them.
#pragma once

#include "limits.h"
#include "packed.h"

namespace trimoe::bench {

struct GemmShape {
  const char* name;
  int64_t k;
  int64_t weights;  // of the matrix, so that panels follow; the formats differ in their bytes
  int64_t panels() const { return weights / k / kPanelCols; }
};

// From the cache, as another row tile of one expert finds them; and from memory, as every expert begins.
inline constexpr GemmShape kGemmShapes[] = {{"cache", 2048, 1 << 18}, {"memory", 2048, 1 << 27}};
inline constexpr int64_t kGemmRows[] = {1, 4, 16, 64, 128, 512};

// More counters for one benchmark.
using Extra = void (*)(benchmark::State& state, const Variant& variant, const GemmShape& shape, int64_t rows);

// format/shape/rows for every format, except fp32 where `narrow_only`.
void register_gemms(bool narrow_only, Extra extra);

Work gemm_work(const GemmShape& shape, int64_t rows, double weight_bytes);

}  // namespace trimoe::bench
