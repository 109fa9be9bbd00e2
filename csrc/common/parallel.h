// How the core borrows threads: the caller owns the pool, the core only hands it tasks.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/numa.h"

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

// Whose tasks, or panels, are whose: of every row of `width`, node n of N has those from n * width / N on.
struct NodeShares {
  int64_t tasks, width;  // tasks: a multiple of width
  int nodes;

  int64_t begin(int node) const { return node * width / nodes; }
  int64_t of_row(int node) const { return begin(node + 1) - begin(node); }
  int64_t count(int node) const { return tasks / width * of_row(node); }
  // The i-th task of a node.
  int64_t task(int node, int64_t i) const {
    return nodes == 1 ? i : i / of_row(node) * width + begin(node) + i % of_row(node);
  }
};

// Hands out each task once: a node's own as long as it has some, then those of the others.
class TaskQueue {
 public:
  explicit TaskQueue(const NodeShares& shares) : shares_(shares) {}

  // A task, or as many as there are.
  int64_t take(int home) {
    for (int i = 0; i < shares_.nodes; ++i) {
      const int node = (home + i) % shares_.nodes;
      const int64_t index = taken_[node].value.fetch_add(1, std::memory_order_relaxed);
      if (index < shares_.count(node)) return shares_.task(node, index);
    }
    return shares_.tasks;
  }

  int64_t left(int home) const {
    return shares_.count(home) - taken_[home].value.load(std::memory_order_relaxed);
  }

 private:
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  NodeShares shares_;
  Counter taken_[kMaxNodes];
};

// Runs task(index, next) for every index in [0, tasks). Workers take the next index from one queue, so
// uneven tasks balance; a task must not depend on which worker runs it. `next` is what the same worker will
// run afterwards (tasks: nothing), so that a task can fetch its data ahead. With `width`, task t works on
// the (t % width)-th of `width` equal parts of a matrix that lies on the machine's nodes as packed/shard.h
// says, and workers begin with those of the node that they run on.
template <typename Task>
void parallel_tasks(const ThreadPool& pool, int workers, int64_t tasks, const Task& task, int64_t width = 0) {
  if (workers > tasks) workers = static_cast<int>(tasks);
  if (workers <= 1) {
    for (int64_t index = 0; index < tasks; ++index) task(index, index + 1);
    return;
  }
  const int nodes = width > 0 ? static_cast<int>(numa_nodes().size()) : 1;
  struct Context {
    const Task& task;
    int64_t tasks;
    int workers, nodes;
    TaskQueue queue;
  } context{task, tasks, workers, nodes, TaskQueue({tasks, nodes > 1 ? width : tasks, nodes})};
  pool.run(
      workers,
      [](void* opaque, int) {
        auto& shared = *static_cast<Context*>(opaque);
        const int home = shared.nodes > 1 ? this_node() : 0;
        for (int64_t index = shared.queue.take(home); index < shared.tasks;) {
          // The last tasks are not taken ahead: another worker may be free sooner.
          const bool last = shared.queue.left(home) * shared.nodes < 2 * shared.workers;
          const int64_t next = last ? shared.tasks : shared.queue.take(home);
          shared.task(index, next);
          index = last ? shared.queue.take(home) : next;
        }
      },
      &context);
}

}  // namespace trimoe
