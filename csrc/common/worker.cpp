#include "common/worker.h"

#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>

#include "common/fork_mutex.h"

namespace trimoe {

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

std::future<void> Worker::run(std::function<void()> job) {
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
      std::thread([queue] { queue->serve(); }).detach();
      queue_ = std::move(queue);
    }
  }
  const std::lock_guard lock(queue_->mutex);
  queue_->jobs.push_back(std::move(task));
  queue_->asked.notify_one();
  return done;
}

}  // namespace trimoe
