// A mutex that fork leaves usable. Another thread may hold a lock when this one forks: the child would wait
// for ever for a thread that it does not have. So whoever forks takes all of these first, and what they guard
// is whole in the child.
#pragma once

#include <shared_mutex>

namespace trimoe {

// How often this process is a child of fork, a child of a child, ... : other values, other threads.
unsigned fork_generation();

// Made and destroyed while none is held.
class ForkMutex {
 public:
  ForkMutex();
  ~ForkMutex();
  ForkMutex(const ForkMutex&) = delete;
  ForkMutex& operator=(const ForkMutex&) = delete;

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  void lock_shared() { mutex_.lock_shared(); }
  void unlock_shared() { mutex_.unlock_shared(); }

  // In the child, where nobody holds it: a new one, as only the thread that has locked may unlock.
  void renew();

 private:
  std::shared_mutex mutex_;
};

}  // namespace trimoe
