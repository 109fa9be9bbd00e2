#include "common/fork_mutex.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include <pthread.h>

namespace trimoe {
namespace {

struct All {
  std::mutex mutex;
  std::vector<ForkMutex*> known;
  std::atomic<unsigned> generation{0};
};

// Never destroyed: threads may still be in calls when the process ends.
All& all() {
  static All* const instance = [] {
    auto* made = new All;
    ::pthread_atfork(
        [] {
          all().mutex.lock();
          for (ForkMutex* one : all().known) one->lock();
        },
        [] {
          for (ForkMutex* one : all().known) one->unlock();
          all().mutex.unlock();
        },
        [] {
          for (ForkMutex* one : all().known) one->renew();
          std::construct_at(&all().mutex);
          all().generation.fetch_add(1);
        });
    return made;
  }();
  return *instance;
}

}  // namespace

unsigned fork_generation() { return all().generation.load(); }

ForkMutex::ForkMutex() {
  const std::lock_guard lock(all().mutex);
  all().known.push_back(this);
}

ForkMutex::~ForkMutex() {
  const std::lock_guard lock(all().mutex);
  std::erase(all().known, this);
}

void ForkMutex::renew() { std::construct_at(&mutex_); }

}  // namespace trimoe
