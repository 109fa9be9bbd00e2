// The whole decision: greedy or alone, refined, and searched where few experts are active.
#pragma once

#include <vector>

#include "assign/assignment.h"
#include "assign/costs.h"
#include "assign/problem.h"

namespace trimoe::assign {

struct Settings {
  Choices choices;
  bool greedy = true;  // or each expert where it takes least alone
  RefineLimits refine{.rounds = 0, .pairs = 0, .gain = 0};
  int search_up_to = 0;  // active experts
  int search_nodes = 0;
};

class Planner {
 public:
  Planner(Machine machine, const Settings& settings) : costs_(std::move(machine)), settings_(settings) {}

  Costs& costs() { return costs_; }

  // false where a number of tokens is not in the tables; the decision is in problem() and assignment().
  bool decide(const LayerView& view) {
    if (!problem_.fill(costs_, view, settings_.choices)) return false;
    if (settings_.greedy)
      begin_greedily(problem_, assignment_);
    else
      begin_alone(problem_, assignment_);
    rounds_ = refine(problem_, settings_.refine, assignment_);
    if (problem_.size() <= settings_.search_up_to) search(problem_, settings_.search_nodes, assignment_);
    return true;
  }

  const Problem& problem() const { return problem_; }
  const Assignment& assignment() const { return assignment_; }
  int rounds() const { return rounds_; }

 private:
  Costs costs_;
  Settings settings_;
  Problem problem_;
  Assignment assignment_;
  int rounds_ = 0;
};

}  // namespace trimoe::assign
