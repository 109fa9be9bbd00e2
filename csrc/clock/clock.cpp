#include "clock/clock.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace trimoe::clock {
namespace {

constexpr int kReady = -1;

size_t at(int index) { return static_cast<size_t>(index); }

}  // namespace

Clock::Clock(int resources, bool keep)
    : keep_(keep),
      busy_ns_(at(resources)),
      intervals_(at(resources)),
      queues_(at(resources)),
      holders_(at(resources)),
      is_touched_(at(resources)) {}

int Clock::extend(std::span<const TaskSpec> tasks) {
  check_tasks(tasks);
  const size_t first = tasks_.size();
  const size_t total = first + tasks.size();
  tasks_.insert(tasks_.end(), tasks.begin(), tasks.end());
  start_ns_.resize(total, kNotYetNs);
  end_ns_.resize(total, kNotYetNs);
  waits_for_.resize(total, 0);
  followers_.resize(total);
  for (size_t i = first; i < total; ++i) {
    parts_left_.push_back(tasks_[i].parts.size());
    std::vector<int>& after = tasks_[i].after;
    std::ranges::sort(after);
    after.erase(std::ranges::unique(after).begin(), after.end());
    for (const int before : after) {
      if (end_ns_[at(before)] >= 0) continue;
      followers_[at(before)].push_back(static_cast<int>(i));
      ++waits_for_[i];
    }
    if (waits_for_[i] == 0) events_.emplace(now_ns_, static_cast<int>(i), kReady);
  }
  return static_cast<int>(first);
}

bool Clock::run(std::optional<int> until) {
  while (!events_.empty() && !(until && ended(*until))) step();
  return !until || ended(*until);
}

std::vector<double> Clock::busy_until_ns(double now_ns) const {
  std::vector<double> busy = busy_ns_;
  for (size_t r = 0; r < busy.size(); ++r) busy[r] -= std::max(0.0, holders_[r].end_ns - now_ns);
  return busy;
}

std::vector<double> Clock::free_at_ns() const {
  std::vector<double> free_at(holders_.size(), now_ns_);
  for (size_t r = 0; r < free_at.size(); ++r) {
    if (holders_[r].busy) free_at[r] = holders_[r].end_ns;
    for (const Waiting& one : queues_[r]) free_at[r] += one.ns;
  }
  return free_at;
}

bool Clock::cancel(int task) {
  if (ended(task) || start_ns_[at(task)] >= 0) return false;
  for (const auto& [resource, ns] : tasks_[at(task)].parts) {
    Queue& queue = queues_[at(resource)];
    std::erase_if(queue, [&](const Waiting& one) { return one.task == task; });
    std::ranges::make_heap(queue, std::greater());
  }
  end(task);  // an event that makes it ready may still come
  return true;
}

void Clock::set_priority(int task, int priority) {
  if (ended(task)) return;
  tasks_[at(task)].priority = priority;
  for (const auto& [resource, ns] : tasks_[at(task)].parts) {
    Queue& queue = queues_[at(resource)];
    for (Waiting& one : queue)
      if (one.task == task) one.priority = priority;
    std::ranges::make_heap(queue, std::greater());
  }
}

void Clock::check_tasks(std::span<const TaskSpec> tasks) const {
  const auto resources = static_cast<int>(holders_.size());
  const auto total = static_cast<int>(tasks_.size() + tasks.size());
  for (const TaskSpec& task : tasks) {
    for (const auto& [resource, ns] : task.parts)
      check(resource >= 0 && resource < resources && ns >= 0 && std::isfinite(ns),
            "parts of known resources that take a time", resource);
    for (const int before : task.after)
      check(before >= 0 && before < total, "tasks that are there to wait for", before);
  }
}

// Everything that happens at the next moment; only then are freed resources given away.
void Clock::step() {
  now_ns_ = std::get<0>(events_.top());
  while (!events_.empty() && std::get<0>(events_.top()) == now_ns_) {
    const auto [time, task, resource] = events_.top();
    events_.pop();
    if (resource == kReady) {
      ready(task);
    } else {
      holders_[at(resource)].busy = false;
      touch(resource);
      if (--parts_left_[at(task)] == 0) end(task);
    }
  }
  for (const int resource : touched_) {
    is_touched_[at(resource)] = false;
    if (!holders_[at(resource)].busy && !queues_[at(resource)].empty()) begin(resource);
  }
  touched_.clear();
}

void Clock::touch(int resource) {
  if (is_touched_[at(resource)]) return;
  is_touched_[at(resource)] = true;
  touched_.push_back(resource);
}

void Clock::ready(int task) {
  if (ended(task)) return;  // cancelled
  const TaskSpec& spec = tasks_[at(task)];
  double waits = 0.0;
  for (const auto& [resource, ns] : spec.parts) {
    queues_[at(resource)].push_back({spec.priority, now_ns_, task, ns});
    std::ranges::push_heap(queues_[at(resource)], std::greater());
    touch(resource);
    const Holder& holder = holders_[at(resource)];
    if (holder.priority > spec.priority) waits = std::max(waits, holder.end_ns - now_ns_);
  }
  behind_ns_ += waits;
  if (!spec.parts.empty()) return;
  start_ns_[at(task)] = now_ns_;
  end(task);
}

void Clock::begin(int resource) {
  Queue& queue = queues_[at(resource)];
  std::ranges::pop_heap(queue, std::greater());
  const Waiting next = queue.back();
  queue.pop_back();
  const double end_ns = now_ns_ + next.ns;
  holders_[at(resource)] = {end_ns, next.priority, true};
  busy_ns_[at(resource)] += next.ns;
  if (start_ns_[at(next.task)] < 0) start_ns_[at(next.task)] = now_ns_;
  if (keep_) intervals_[at(resource)].push_back({now_ns_, end_ns, next.task});
  events_.emplace(end_ns, next.task, resource);
}

void Clock::end(int task) {
  end_ns_[at(task)] = now_ns_;
  for (const int follower : followers_[at(task)])
    if (--waits_for_[at(follower)] == 0) events_.emplace(now_ns_, follower, kReady);
  // A long run has a hundred thousand tasks, of which only the last ones matter.
  followers_[at(task)] = {};
  tasks_[at(task)] = {};
}

}  // namespace trimoe::clock
