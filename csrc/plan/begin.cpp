#include "plan/assignment.h"
#include "plan/load.h"

namespace trimoe::plan {

void Assignment::clear(const Problem& problem) {
  option.assign(static_cast<size_t>(problem.size()), -1);
  load.assign(static_cast<size_t>(problem.width()), 0.0F);
  peak = 0;
}

void Assignment::place(const Problem& problem, int i, int to) {
  add_row(load.data(), problem.row(i, to), problem.width());
  option[static_cast<size_t>(i)] = static_cast<int8_t>(to);
  peak = load[static_cast<size_t>(busiest(load.data(), problem.width()))];
}

void Assignment::move(const Problem& problem, int i, int to) {
  int8_t& own = option[static_cast<size_t>(i)];
  move_row(load.data(), problem.row(i, own), problem.row(i, to), problem.width(), load.data());
  own = static_cast<int8_t>(to);
  peak = load[static_cast<size_t>(busiest(load.data(), problem.width()))];
}

void begin_greedily(const Problem& problem, Assignment& assignment) {
  assignment.clear(problem);
  for (int i = 0; i < problem.size(); ++i) {
    int best = -1;
    float best_peak = 0;
    for (int x = 0; x < kOptions; ++x) {
      if (!problem.has(i, x)) continue;
      const float peak = peak_with(assignment.load.data(), problem.row(i, x), problem.width());
      const bool better =
          peak < best_peak || (peak == best_peak && problem.own(i, x) < problem.own(i, best));
      if (best >= 0 && !better) continue;
      best = x;
      best_peak = peak;
    }
    assignment.place(problem, i, best);
  }
}

void begin_alone(const Problem& problem, Assignment& assignment) {
  assignment.clear(problem);
  for (int i = 0; i < problem.size(); ++i) {
    int best = kGpu;
    for (int x = 0; x < kOptions; ++x)
      if (problem.own(i, x) < problem.own(i, best)) best = x;
    assignment.place(problem, i, best);
  }
}

}  // namespace trimoe::plan
