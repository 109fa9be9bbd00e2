#include "ndp/timing/multiply.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace trimoe::ndp {
namespace {

// `sum` after `count` additions of `step`, each of them rounded; both are positive. Between two powers of two
// doubles are evenly spaced, so every addition of the same step moves the sum equally far.
double add_often(double sum, double step, int64_t count) {
  while (count > 0) {
    const double next = sum + step;
    --count;
    int exponent = 0;
    std::frexp(next, &exponent);
    const double limit = std::ldexp(1.0, exponent), spacing = std::ldexp(1.0, exponent - 53);
    const double moved = next + step - next;
    // Half way between two doubles, the even one is taken: every other time it is the lower one.
    const bool even_wins = 2 * std::abs(step - moved) == spacing;
    const double room = moved > 0 ? std::floor((limit - next) / moved) : 0;
    const auto jumps = even_wins ? 0 : std::min(count, static_cast<int64_t>(room));
    sum = next + static_cast<double>(jumps) * moved;
    count -= jumps;
  }
  return sum;
}

}  // namespace

double multiply_run(double done_ns, const Run& run, const Pace& pace) {
  const auto end_ns = [&](int64_t burst) {
    return static_cast<double>(run.first_end + burst * pace.clocks_apart) * pace.clock_ns;
  };
  // Margins against rounding: what lies between them is left to the loop.
  const double apart_ns = pace.clocks_apart * pace.clock_ns;
  const bool is_faster = pace.multiply_ns < 0.999 * apart_ns, is_slower = pace.multiply_ns > 1.001 * apart_ns;
  for (int64_t burst = 0; burst < run.bursts; ++burst) {
    const double end = end_ns(burst);
    // The core waits for this burst, hence for every later one.
    if (is_faster && done_ns <= end) return end_ns(run.bursts - 1) + pace.multiply_ns;
    // This burst waits for the core, hence every later one does.
    if (is_slower && done_ns >= end) return add_often(done_ns, pace.multiply_ns, run.bursts - burst);
    done_ns = std::max(done_ns, end) + pace.multiply_ns;
  }
  return done_ns;
}

}  // namespace trimoe::ndp
