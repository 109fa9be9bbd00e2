#include <algorithm>

#include "assign/assignment.h"
#include "assign/load.h"

namespace trimoe::assign {

void Assignment::clear(const Problem& problem) {
  option.assign(static_cast<size_t>(problem.size()), 0);
  load.assign(static_cast<size_t>(problem.width()), 0.0F);
  peak = 0;
}

float Assignment::peak_of(const Problem& problem, int i, int to) const {
  const float* row = problem.row(i, to);
  const Touched& touched = problem.option(i, to).touched;
  if (!touched.few()) return peak_with(load.data(), row, problem.width());
  float found = peak;
  for (int k = 0; k < touched.count; ++k) {
    const auto at = static_cast<size_t>(touched.at[static_cast<size_t>(k)]);
    found = std::max(found, load[at] + row[at]);
  }
  return found;
}

void Assignment::place(const Problem& problem, int i, int to) {
  peak = peak_of(problem, i, to);
  option[static_cast<size_t>(i)] = static_cast<uint8_t>(to);
  const float* row = problem.row(i, to);
  const Touched& touched = problem.option(i, to).touched;
  if (!touched.few()) return add_row(load.data(), row, problem.width());
  for (int k = 0; k < touched.count; ++k) {
    const auto at = static_cast<size_t>(touched.at[static_cast<size_t>(k)]);
    load[at] += row[at];
  }
}

void Assignment::move(const Problem& problem, int i, int to) {
  uint8_t& own = option[static_cast<size_t>(i)];
  move_row(load.data(), problem.row(i, own), problem.row(i, to), problem.width(), load.data());
  own = static_cast<uint8_t>(to);
  peak = assign::peak_of(load.data(), problem.width());
}

void begin_greedily(const Problem& problem, Assignment& assignment) {
  assignment.clear(problem);
  for (int i = 0; i < problem.size(); ++i) {
    int best = kByPreference[0];
    float best_peak = assignment.peak_of(problem, i, best);
    for (const int x : problem.by_preference().subspan(1)) {
      if (!problem.has(i, x)) continue;
      const float peak = assignment.peak_of(problem, i, x);
      const bool better =
          peak < best_peak || (peak == best_peak && problem.option(i, x).own < problem.option(i, best).own);
      if (!better) continue;
      best = x;
      best_peak = peak;
    }
    assignment.place(problem, i, best);
  }
}

void begin_alone(const Problem& problem, Assignment& assignment) {
  assignment.clear(problem);
  for (int i = 0; i < problem.size(); ++i) {
    int best = kByPreference[0];
    for (const int x : problem.by_preference())
      if (problem.option(i, x).own < problem.option(i, best).own) best = x;
    assignment.place(problem, i, best);
  }
}

}  // namespace trimoe::assign
