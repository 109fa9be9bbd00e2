#include "packed/pack/int4.h"

#include "common/convert.h"

namespace trimoe {
namespace {

// The code that the extreme value of a column gets, before rounding: what is tried.
constexpr float kArms[] = {-7.0f, -7.5f, -8.0f, -8.5f, -9.0f, -9.5f, -10.0f, -10.5f};

Lanes int4_scales(GroupValues values, int64_t group, int64_t column) {
  const Lanes extreme = extreme_of(values, group, column);
  const Lanes round = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Lanes best{}, best_scale{};
  for (const float arm : kArms) {
    const Lanes inverse = magnitude(extreme) < all(kTiny) ? Lanes{} : all(arm) / extreme;
    Lanes value_code{}, code_code{};
    for (int64_t k = 0; k < group; ++k) {
      const Lanes value = load(values[k] + column) * inverse;
      const Lanes code = min(max((value + round) - round, all(-8.0f)), all(7.0f));
      value_code += value * code;
      code_code += code * code;
    }
    // By the best scale for these codes they explain this much of the sum of squares, in units of the
    // extreme.
    const Lanes scale = code_code > Lanes{} ? value_code / code_code : Lanes{};
    const Lanes explained = scale * value_code * all(1.0f / (arm * arm));
    best_scale = explained > best ? scale * extreme * all(1.0f / arm) : best_scale;
    best = max(best, explained);
  }
  return best_scale;
}

}  // namespace

void search_int4_scales(GroupValues values, int64_t group, float (&scales)[kTileCols]) {
  for (int64_t column = 0; column < kTileCols; column += kLanes)
    store(scales + column, int4_scales(values, group, column));
  for (float& scale : scales) scale = round_to_bf16(scale);
}

}  // namespace trimoe
