// How the core borrows threads: the caller owns the pool, the core only hands it tasks.
#pragma once

#include <atomic>
#include <cstdint>

namespace trimoe {

// Calls body(worker) once for every worker in [0, workers), concurrently or not, and returns when
// all are done. A pool inside another parallel region may run all workers on one thread, so a body
// must never wait for another worker.
class ThreadPool {
 public:
  virtual ~ThreadPool() = default;
  virtual int max_workers() const = 0;
  virtual void run(int workers, void (*body)(void* context, int worker), void* context) const = 0;
};

// Runs task(index, next) for every index in [0, tasks). Workers take the next index from one counter,
// so uneven tasks balance; a task must not depend on which worker runs it. `next` is what the same
// worker will run afterwards (tasks: nothing), so that a task can fetch its data ahead.
template <typename Task>
void parallel_tasks(const ThreadPool& pool, int workers, int64_t tasks, const Task& task) {
  if (workers > tasks) workers = static_cast<int>(tasks);
  if (workers <= 1) {
    for (int64_t index = 0; index < tasks; ++index) task(index, index + 1);
    return;
  }
  struct Context {
    const Task& task;
    int64_t tasks;
    int workers;
    std::atomic<int64_t> next{0};
  } context{task, tasks, workers};
  pool.run(
      workers,
      [](void* opaque, int) {
        auto& shared = *static_cast<Context*>(opaque);
        const auto take = [&] {
          const int64_t index = shared.next.fetch_add(1, std::memory_order_relaxed);
          return index < shared.tasks ? index : shared.tasks;
        };
        for (int64_t index = take(); index < shared.tasks;) {
          // The last tasks are not taken ahead: another worker may be free sooner.
          const bool last = index + 2 * shared.workers >= shared.tasks;
          const int64_t next = last ? shared.tasks : take();
          shared.task(index, next);
          index = last ? take() : next;
        }
      },
      &context);
}

}  // namespace trimoe
