#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "assign/assignment.h"
#include "assign/load.h"

namespace trimoe::assign {
namespace {

struct Move {
  int i;
  int to;
};

// The best so far: the lowest peak, of equals the least spread, of equals the first.
struct Best {
  float peak = 0;
  float spread = 0;
  std::optional<Move> first;
  std::optional<Move> second;

  bool wants(float other_peak, float other_spread) const {
    return other_peak < peak || (first && other_peak == peak && other_spread < spread);
  }
};

class Round {
 public:
  Round(const Problem& problem, const RefineLimits& limits, Assignment& assignment)
      : problem_(problem), limits_(limits), assignment_(assignment), width_(problem.width()) {}

  bool improve() {
    if (assignment_.peak <= 0) return false;
    scale_ = 1 / assignment_.peak;
    Best best;
    best.peak = assignment_.peak * (1 - limits_.gain);
    find_move(best);
    if (!best.first && limits_.pairs > 0) find_pair(best);
    for (const auto& move : {best.first, best.second})
      if (move) assignment_.move(problem_, move->i, move->to);
    return best.first.has_value();
  }

 private:
  const float* row_of(int i) const { return problem_.row(i, assignment_.of(i)); }

  // Options of all experts that load a resource and would load it less; `visit(i, to, from's row, to's row)`.
  template <typename Visit>
  void each_relief(int resource, const Visit& visit) const {
    for (int i = 0; i < problem_.size(); ++i) {
      const float* from = row_of(i);
      if (from[resource] <= 0) continue;
      for (const int to : problem_.by_preference())
        if (problem_.has(i, to) && problem_.row(i, to)[resource] < from[resource])
          visit(i, to, from, problem_.row(i, to));
    }
  }

  // The load of a move's own longest resource after it: no peak is lower, and most are no higher.
  float least_peak(const float* load, const float* from, int i, int to) const {
    const int longest = problem_.option(i, to).longest;
    return load[longest] - from[longest] + problem_.row(i, to)[longest];
  }

  void consider(const float* load, const float* from, const float* to, Move first, std::optional<Move> second,
                Best& best) const {
    const float peak = peak_moved(load, from, to, width_);
    if (peak > best.peak) return;
    const float spread = spread_moved(load, from, to, width_, scale_);
    if (best.wants(peak, spread)) best = {peak, spread, first, second};
  }

  void find_move(Best& best) {
    const float* load = assignment_.load.data();
    firsts_.clear();
    each_relief(busiest(load, width_), [&](int i, int to, const float* from, const float* row) {
      const float least = least_peak(load, from, i, to);
      firsts_.push_back({least, {i, to}});
      if (least <= best.peak) consider(load, from, row, {i, to}, std::nullopt, best);
    });
  }

  // What relieves the busiest resource overloads another one; a second expert leaves that one.
  void find_pair(Best& best) {
    const auto n = std::min(static_cast<size_t>(limits_.pairs), firsts_.size());
    std::ranges::partial_sort(
        firsts_, firsts_.begin() + static_cast<std::ptrdiff_t>(n), {}, [](const auto& one) {
          const Move& move = one.second;
          return std::tuple(one.first, move.i, kPreference[static_cast<size_t>(move.to)]);
        });
    after_.resize(static_cast<size_t>(width_));
    for (size_t k = 0; k < n; ++k) {
      const Move first = firsts_[k].second;
      float* load = after_.data();
      move_row(assignment_.load.data(), row_of(first.i), problem_.row(first.i, first.to), width_, load);
      const int busy = busiest(load, width_);
      each_relief(busy, [&](int i, int to, const float* from, const float* row) {
        if (i == first.i || load[busy] - from[busy] + row[busy] > best.peak) return;
        if (least_peak(load, from, i, to) <= best.peak) consider(load, from, row, first, Move{i, to}, best);
      });
    }
  }

  const Problem& problem_;
  const RefineLimits& limits_;
  Assignment& assignment_;
  int width_;
  float scale_ = 0;
  std::vector<std::pair<float, Move>> firsts_;  // moves by `least_peak`
  std::vector<float> after_;
};

}  // namespace

int refine(const Problem& problem, const RefineLimits& limits, Assignment& assignment) {
  Round round(problem, limits, assignment);
  int made = 0;
  while (made < limits.rounds && round.improve()) ++made;
  return made;
}

}  // namespace trimoe::assign
