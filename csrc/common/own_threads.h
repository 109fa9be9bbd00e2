// Threads started for one measurement or check, when no pool of the caller is at hand.
#pragma once

#include <thread>
#include <vector>

#include "common/parallel.h"

namespace trimoe {

class OwnThreads final : public ThreadPool {
 public:
  explicit OwnThreads(int threads) : threads_(threads) {}
  int max_workers() const override { return threads_; }
  void run(int workers, void (*body)(void*, int), void* context) const override {
    std::vector<std::jthread> others;
    for (int worker = 1; worker < workers; ++worker) others.emplace_back(body, context, worker);
    body(context, 0);
  }

 private:
  int threads_;
};

}  // namespace trimoe
