// A thread that does one job after the other while its user does something else.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <mutex>

namespace trimoe {

// The thread starts with the first job and waits for the next, as long as the worker lives. A child of fork
// does not have it: there a job is done at once, by whoever brings it. Any thread may bring jobs; a worker
// ends when nobody waits for one.
class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // A job for after those before it; what it throws is the future's. It begins at the next wake(), which may
  // take as long as many a job: whoever has no time leaves it to another thread.
  std::future<void> submit(std::function<void()> job);
  void wake();

 private:
  struct Queue;

  const unsigned generation_;  // of the process that the thread belongs to
  std::mutex starting_;
  std::shared_ptr<Queue> queue_;  // shared with the thread
};

}  // namespace trimoe
