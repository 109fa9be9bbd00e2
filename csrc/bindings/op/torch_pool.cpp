#include "bindings/op/torch_pool.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include <pthread.h>

#include "bindings/op/torch_tensor.h"

namespace trimoe {
namespace {

// The workers of one parallel region.
struct Region {
  int workers;
  void (*body)(void*, int);
  void* context;
  std::once_flag failed;
  std::exception_ptr failure;  // the first; torch would print it and forget what it was

  void run() {
    const auto range = [](int64_t begin, int64_t end, void* opaque) {
      auto* region = static_cast<Region*>(opaque);
      try {
        for (int64_t worker = begin; worker < end; ++worker)
          region->body(region->context, static_cast<int>(worker));
      } catch (...) {
        std::call_once(region->failed, [&] { region->failure = std::current_exception(); });
      }
    };
    const bool accepted = torch_parallel_for(0, workers, 1, range, this) == 0;
    if (!accepted && !failure) failure = std::make_exception_ptr(Failure("torch's threads", "none"));
  }
};

// OpenMP's threads belong to the thread that first asked for them, and are not forked with it: it would wait
// for them for ever. This thread asks in its place.
class Deputy {
 public:
  Deputy() : thread_([this] { serve(); }) { thread_.detach(); }

  void run(Region& region) {
    std::unique_lock lock(mutex_);
    region_ = &region;
    asked_.notify_one();
    done_.wait(lock, [this] { return region_ == nullptr; });
  }

 private:
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      asked_.wait(lock, [this] { return region_ != nullptr; });
      region_->run();
      region_ = nullptr;
      done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable asked_, done_;
  Region* region_ = nullptr;
  std::thread thread_;
};

thread_local bool was_forked = false;   // this thread, the one that a fork keeps
thread_local Deputy* deputy = nullptr;  // never deleted: its thread waits as long as the process lives

[[maybe_unused]] const int registered = ::pthread_atfork(nullptr, nullptr, [] {
  was_forked = true;
  deputy = nullptr;
});

}  // namespace

int TorchPool::max_workers() const {
  uint32_t threads = 1;
  ok(torch_get_num_threads(&threads), "get_num_threads");
  return static_cast<int>(threads);
}

void TorchPool::run(int workers, void (*body)(void*, int), void* context) const {
  Region region{workers, body, context, {}, {}};
  if (was_forked) {
    if (!deputy) deputy = new Deputy;
    deputy->run(region);
  } else {
    region.run();
  }
  if (region.failure) std::rethrow_exception(region.failure);
}

}  // namespace trimoe
