// What calls took, kept until somebody looks.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "common/fork_mutex.h"
#include "runtime/domain.h"

namespace trimoe::runtime {

// A domain's part of a call, by the code in the plan.
struct Took : Time {
  int32_t code = 0;
  int64_t experts = 0, rows = 0;  // rows: (token, expert) pairs
};

// Nanoseconds of the monotonic clock; begun_ns: its value when the call began.
struct Record {
  int64_t layer = 0;
  int64_t begun_ns = 0;
  int64_t plan_ns = 0;       // that the policy took
  int64_t submitted_ns = 0;  // until the first work was submitted, to whomever, the policy included
  int64_t took_ns = 0;       // until the result was there
  int64_t tokens = 0;
  int64_t host_rows = 0;   // that the host's kernels computed, those lent by other domains included
  std::vector<Took> took;  // the CPU, whose time is its kernels', and those with experts; in order of code
};

class Recorder {
 public:
  explicit Recorder(size_t capacity) : capacity_(capacity) {}

  // The oldest goes when there is no room.
  void add(Record record) {
    const std::lock_guard lock(mutex_);
    if (records_.size() == capacity_) {
      records_.pop_front();
      ++dropped_;
    }
    records_.push_back(std::move(record));
  }
  // All since the last time, and how many had to go.
  std::pair<std::deque<Record>, int64_t> drain() {
    const std::lock_guard lock(mutex_);
    return {std::exchange(records_, {}), std::exchange(dropped_, 0)};
  }

 private:
  const size_t capacity_;
  ForkMutex mutex_;
  std::deque<Record> records_;
  int64_t dropped_ = 0;
};

}  // namespace trimoe::runtime
