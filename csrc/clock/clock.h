// A clock that tasks are put on while it runs: a task's parts queue at the resources that they occupy.
#pragma once

#include <functional>
#include <optional>
#include <queue>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace trimoe::clock {

// What of a task's load occupies one resource.
struct Part {
  int resource;
  double ns;
};

// What a task occupies, the tasks that must have ended, and who goes first.
struct TaskSpec {
  std::vector<Part> parts;
  std::vector<int> after;
  int priority = 0;
};

// Of a task that has not begun, or ended.
inline constexpr double kNotYetNs = -1.0;

struct Interval {
  double start_ns;
  double end_ns;
  int task;
};

class Clock {
 public:
  // keep: whether to remember every interval.
  Clock(int resources, bool keep);

  // Puts tasks on the clock from now on; the first's number. They may wait for each other and for earlier
  // ones. Throws Error for a resource, a time or a task to wait for that cannot be; nothing is added then.
  int extend(std::span<const TaskSpec> tasks);

  // On until a task has ended, or until nothing more can run; false: that task has not.
  bool run(std::optional<int> until);

  // Takes a task off that has not begun anywhere; those that wait for it wait no longer. Whether it could.
  bool cancel(int task);
  // Another priority, from now on; parts that have begun go on.
  void set_priority(int task, int priority);

  int resources() const { return static_cast<int>(holders_.size()); }
  bool ended(int task) const { return end_ns_.at(static_cast<size_t>(task)) >= 0; }
  double now_ns() const { return now_ns_; }
  double behind_ns() const { return behind_ns_; }
  const std::vector<double>& start_ns() const { return start_ns_; }  // kNotYetNs where it is not yet
  const std::vector<double>& end_ns() const { return end_ns_; }
  const std::vector<double>& busy_ns() const { return busy_ns_; }
  std::vector<double> busy_until_ns(double now_ns) const;
  // When each resource will have done what it has and what waits for it now.
  std::vector<double> free_at_ns() const;
  const std::vector<std::vector<Interval>>& intervals() const { return intervals_; }

 private:
  struct Waiting {
    int priority;
    double since_ns;
    int task;
    double ns;
    auto operator<=>(const Waiting&) const = default;
  };
  struct Holder {
    double end_ns = 0.0;
    int priority = 0;
    bool busy = false;
  };
  // (time, task, resource); resource kReady for a task that may start.
  using Event = std::tuple<double, int, int>;
  // The earliest in front; a heap that can be searched, for the few tasks that change while they wait.
  using Queue = std::vector<Waiting>;

  void check_tasks(std::span<const TaskSpec> tasks) const;
  void step();
  void ready(int task);
  void begin(int resource);
  void end(int task);
  void touch(int resource);

  bool keep_;
  double now_ns_ = 0.0;
  double behind_ns_ = 0.0;
  std::vector<TaskSpec> tasks_;
  std::vector<double> start_ns_;
  std::vector<double> end_ns_;
  std::vector<size_t> parts_left_;
  std::vector<int> waits_for_;
  std::vector<std::vector<int>> followers_;
  std::vector<double> busy_ns_;
  std::vector<std::vector<Interval>> intervals_;
  std::vector<Queue> queues_;
  std::vector<Holder> holders_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<int> touched_;
  std::vector<bool> is_touched_;
};

}  // namespace trimoe::clock
