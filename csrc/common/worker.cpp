#include "common/worker.h"

#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>

#include <pthread.h>
#include <sched.h>

#include "common/fork_mutex.h"

namespace trimoe {
namespace {

// Where no CPU is free, a thread that wakes up may take that of the one who woke it, until its job is done. A
// batch thread does not, and gets its share all the same. A system that refuses runs it as any other.
void be_a_batch_thread() {
  const sched_param none{};
  ::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &none);
}

}  // namespace

struct Worker::Queue {
  std::mutex mutex;
  std::condition_variable asked;
  std::deque<std::packaged_task<void()>> jobs;
  bool is_closed = false;

  void serve() {
    for (;;) {
      std::unique_lock lock(mutex);
      asked.wait(lock, [this] { return is_closed || !jobs.empty(); });
      if (jobs.empty()) return;
      std::packaged_task<void()> job = std::move(jobs.front());
      jobs.pop_front();
      lock.unlock();
      job();
    }
  }
};

Worker::Worker() : generation_(fork_generation()) {}

Worker::~Worker() {
  if (!queue_ || generation_ != fork_generation()) return;
  const std::lock_guard lock(queue_->mutex);
  queue_->is_closed = true;
  queue_->asked.notify_one();
}

std::future<void> Worker::submit(std::function<void()> job) {
  std::packaged_task<void()> task(std::move(job));
  std::future<void> done = task.get_future();
  if (generation_ != fork_generation()) {
    task();
    return done;
  }
  {
    const std::lock_guard lock(starting_);
    if (!queue_) {
      auto queue = std::make_shared<Queue>();
      // Detached: in a child of fork there would be nobody to join.
      std::thread([queue] {
        be_a_batch_thread();
        queue->serve();
      }).detach();
      queue_ = std::move(queue);
    }
  }
  const std::lock_guard lock(queue_->mutex);
  queue_->jobs.push_back(std::move(task));
  return done;
}

void Worker::wake() {
  if (queue_ && generation_ == fork_generation()) queue_->asked.notify_one();
}

}  // namespace trimoe
