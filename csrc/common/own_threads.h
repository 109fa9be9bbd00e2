// Threads started for one measurement or check, when no pool of the caller is at hand.
#pragma once

#include <exception>
#include <thread>
#include <vector>

#include "common/parallel.h"

namespace trimoe {

class OwnThreads final : public ThreadPool {
 public:
  explicit OwnThreads(int threads) : threads_(threads) {}
  int max_workers() const override { return threads_; }
  void run(int workers, void (*body)(void*, int), void* context) const override {
    std::vector<std::exception_ptr> failures(static_cast<size_t>(workers));
    const auto guarded = [&](int worker) {
      try {
        body(context, worker);
      } catch (...) {  // leaving a thread by an exception would end the process
        failures[static_cast<size_t>(worker)] = std::current_exception();
      }
    };
    {
      std::vector<std::jthread> others;
      for (int worker = 1; worker < workers; ++worker) others.emplace_back(guarded, worker);
      guarded(0);
    }
    for (const std::exception_ptr& failure : failures)
      if (failure) std::rethrow_exception(failure);
  }

 private:
  int threads_;
};

// body(index) for every index below `threads`, each on a thread; the caller's own is the first.
template <typename Body>
void on_own_threads(int threads, const Body& body) {
  OwnThreads(threads).run(
      threads, [](void* opaque, int index) { (*static_cast<const Body*>(opaque))(index); },
      const_cast<Body*>(&body));
}

}  // namespace trimoe
