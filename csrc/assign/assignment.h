// Which option each active expert has, and what that loads; beginnings, refinement, the exact search.
#pragma once

#include <cstdint>
#include <vector>

#include "assign/problem.h"

namespace trimoe::assign {

struct Assignment {
  std::vector<uint8_t> option;  // of the problem's i-th expert
  std::vector<float> load;      // [width]
  float peak = 0;               // the longest of it: the makespan

  int of(int i) const { return option[static_cast<size_t>(i)]; }
  void clear(const Problem& problem);
  // Of an expert that has no option yet: the peak with it, and to give it one.
  float peak_of(const Problem& problem, int i, int to) const;
  void place(const Problem& problem, int i, int to);
  void move(const Problem& problem, int i, int to);
};

// Each expert in turn where the makespan stays lowest; of equals, where it takes least.
void begin_greedily(const Problem& problem, Assignment& assignment);

// Each expert where it takes least, whatever the others do.
void begin_alone(const Problem& problem, Assignment& assignment);

struct RefineLimits {
  int rounds;  // at most
  int pairs;   // first moves that a second is sought for, once no single move helps; 0: none
  float gain;  // least share of the makespan that a round must save
};

// Moves, and pairs of moves (swaps among them), that relieve the busiest resource. Returns the rounds made.
int refine(const Problem& problem, const RefineLimits& limits, Assignment& assignment);

// Branch and bound from an assignment on: the optimum, unless `nodes` are too few. Returns the nodes visited.
int search(const Problem& problem, int nodes, Assignment& assignment);

}  // namespace trimoe::assign
