#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "assign/assignment.h"
#include "assign/load.h"

namespace trimoe::assign {
namespace {

// What is not better by this share is the same: floats round.
constexpr float kSame = 1e-6F;

class Search {
 public:
  Search(const Problem& problem, int nodes, Assignment& best)
      : problem_(problem), width_(problem.width()), nodes_(nodes), best_(best), tried_(best.option) {
    order_.resize(static_cast<size_t>(problem.size()));
    std::iota(order_.begin(), order_.end(), 0);
    std::ranges::stable_sort(order_, std::ranges::greater{}, [&](int i) {
      float least = kImpossible;
      for (int x = 0; x < problem_.options(); ++x) least = std::min(least, problem_.option(i, x).own);
      return least;
    });
    sum_least();
    loads_.resize((order_.size() + 1) * static_cast<size_t>(width_));
  }

  int run() {
    visit(0);
    return visited_;
  }

 private:
  float* load(size_t depth) { return loads_.data() + depth * static_cast<size_t>(width_); }
  const float* least(size_t depth) const { return least_.data() + depth * static_cast<size_t>(width_); }

  // least(d): what the experts from depth d on load at least, each resource taken alone.
  void sum_least() {
    least_.assign((order_.size() + 1) * static_cast<size_t>(width_), 0.0F);
    for (size_t depth = order_.size(); depth-- > 0;)
      for (int r = 0; r < width_; ++r) {
        float lowest = kImpossible;
        for (int x = 0; x < problem_.options(); ++x)
          if (problem_.has(order_[depth], x)) lowest = std::min(lowest, problem_.row(order_[depth], x)[r]);
        const auto at = depth * static_cast<size_t>(width_) + static_cast<size_t>(r);
        least_[at] = lowest + least_[at + static_cast<size_t>(width_)];
      }
  }

  // Options of the expert at a depth, the one that leads to the lowest peak first. Returns how many.
  int nearest_first(size_t depth, std::array<int, kMostOptions>& order) {
    std::array<float, kMostOptions> peaks;
    int n = 0;
    for (const int x : problem_.by_preference()) {
      if (!problem_.has(order_[depth], x)) continue;
      const float peak = peak_with(load(depth), problem_.row(order_[depth], x), width_);
      int place = n++;
      for (; place > 0 && peak < peaks[static_cast<size_t>(place - 1)]; --place) {
        peaks[static_cast<size_t>(place)] = peaks[static_cast<size_t>(place - 1)];
        order[static_cast<size_t>(place)] = order[static_cast<size_t>(place - 1)];
      }
      peaks[static_cast<size_t>(place)] = peak;
      order[static_cast<size_t>(place)] = x;
    }
    return n;
  }

  void visit(size_t depth) {
    if (visited_++ >= nodes_) return;
    if (depth == order_.size()) {
      best_.peak = peak_of(load(depth), width_);
      best_.option = tried_;
      std::copy_n(load(depth), width_, best_.load.begin());
      return;
    }
    const int i = order_[depth];
    std::array<int, kMostOptions> options;
    const int n = nearest_first(depth, options);
    for (int k = 0; k < n; ++k) {
      const int x = options[static_cast<size_t>(k)];
      float* next = load(depth + 1);
      std::copy_n(load(depth), width_, next);
      add_row(next, problem_.row(i, x), width_);
      if (peak_with(next, least(depth + 1), width_) >= best_.peak * (1 - kSame)) continue;
      tried_[static_cast<size_t>(i)] = static_cast<uint8_t>(x);
      visit(depth + 1);
    }
  }

  const Problem& problem_;
  int width_;
  int nodes_;
  int visited_ = 0;
  Assignment& best_;
  std::vector<uint8_t> tried_;
  std::vector<int> order_;    // experts that are long on every domain first
  std::vector<float> least_;  // [depth + 1][width]
  std::vector<float> loads_;  // [depth + 1][width]
};

}  // namespace

int search(const Problem& problem, int nodes, Assignment& assignment) {
  return problem.size() == 0 ? 0 : Search(problem, nodes, assignment).run();
}

}  // namespace trimoe::assign
