// A step: every expert where it lies, all DIMMs at once.
#include <algorithm>
#include <chrono>
#include <deque>

#include "ndp/dimm/transfer.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {

struct Fleet::Step {
  double start_ns = 0;
  bool computes = true;
  std::map<int, std::vector<Task>> by_dimm;
  std::deque<std::vector<float>> partial;  // results of the parts of split experts, in order
  std::set<int> gathers_from;              // DIMMs that have pieces of striped experts
  std::map<int, Status> failed;
  StepTook time;
};

void Fleet::add(Step& step, const ExpertJob& job) {
  const Resident& resident = find(job.expert);
  const Held& first = resident.held[0];
  const int runs = job.dimm < 0 ? first.dimm : job.dimm;
  dimm(runs);  // there must be one
  if (job.tokens <= 0) return;
  switch (resident.layout) {
    case Layout::kLocalized:
      check(runs == first.dimm, "an expert on the DIMM where it lies", job.dimm, "where(), or migrate()");
      step.by_dimm[runs].push_back({&job, &first, job.out, first.number, {}});
      return;
    case Layout::kStriped: {
      Task task{&job, &first, job.out, first.number, {}};
      if (runs != first.dimm) {
        task.number = free_slot(runs);
        task.told = config_payload(first.slot);
      }
      step.by_dimm[runs].push_back(std::move(task));
      for (const int one : dimms_of(first.slot.pieces, {})) step.gathers_from.insert(one);
      return;
    }
    case Layout::kSplit:
      for (const Held& held : resident.held) {
        if (job.x) step.partial.emplace_back(static_cast<size_t>(job.tokens * resident.shape.hidden));
        step.by_dimm[held.dimm].push_back(
            {&job, &held, job.x ? step.partial.back().data() : nullptr, held.number, {}});
      }
  }
}

// What is gathered needs the ranks of every DIMM that has a piece, for as long as anything runs. A port
// carries one gather at a time: DIMMs with lower numbers are served first.
void Fleet::run_gathering(Step& step) {
  std::set<int> concerned = step.gathers_from;
  for (const auto& [index, tasks] : step.by_dimm) concerned.insert(index);
  for (const int index : concerned)
    if (const Status status = set_mode(index, dimm(index).state().config.mode); status != Status::kOk)
      step.failed[index] = status;
  start_step();
  for (const auto& [index, tasks] : step.by_dimm) {
    if (!step.failed.empty()) break;  // not all pieces can be had
    const Status status = drive(index, tasks, false);
    if (status != Status::kOk)
      step.failed[status == Status::kTimeout ? silent_of(concerned, index) : index] = status;
    step.time.by_dimm.emplace_back(index, dimm(index).now_ns() - step.start_ns);
    for (const Task& task : tasks)
      if (!task.told.empty()) dimm(index).state().slots.erase(task.number);
  }
  for (const int index : concerned) return_ranks(index);
}

StepTook Fleet::run(std::span<const ExpertJob> jobs, const ThreadPool& pool) {
  using Clock = std::chrono::steady_clock;
  const Lock lock(*this);
  Step step;
  for (const ExpertJob& job : jobs) add(step, job);
  const auto begun = Clock::now();
  step.start_ns = start_step();
  if (step.gathers_from.empty()) {
    const std::vector<std::pair<int, std::vector<Task>>> work(step.by_dimm.begin(), step.by_dimm.end());
    std::vector<Status> ended(work.size());
    parallel_tasks(pool, pool.max_workers(), std::ssize(work), [&](int64_t task, int64_t) {
      const auto& [index, tasks] = work[static_cast<size_t>(task)];
      ended[static_cast<size_t>(task)] = drive(index, tasks, true);
    });
    for (size_t i = 0; i < work.size(); ++i) {
      step.time.by_dimm.emplace_back(work[i].first, dimm(work[i].first).now_ns() - step.start_ns);
      if (ended[i] != Status::kOk) step.failed[work[i].first] = ended[i];
    }
  } else {
    run_gathering(step);
  }
  finish(step, jobs);
  step.time.ns = step_ns(step.start_ns);
  step.time.host_ns = std::chrono::nanoseconds(Clock::now() - begun).count();
  ++counters_.steps;
  counters_.busy_ns += step.time.ns;
  counters_.host_ns += step.time.host_ns;
  if (!step.failed.empty()) {
    const auto [index, status] = *step.failed.begin();
    throw DimmError(index, status, "its experts", step.failed);
  }
  return step.time;
}

// Counts what is done and adds the parts of split experts; remembers who failed.
void Fleet::finish(Step& step, std::span<const ExpertJob> jobs) {
  for (const auto& [index, tasks] : step.by_dimm)
    if (!step.failed.contains(index)) failures_.erase(index);
  for (const auto& [index, status] : step.failed) failures_[index] = status;
  std::set<const ExpertJob*> undone;
  for (const auto& [index, tasks] : step.by_dimm)
    if (step.failed.contains(index) || (!step.failed.empty() && !step.gathers_from.empty()))
      for (const Task& task : tasks) undone.insert(task.job);
  auto partial = step.partial.begin();
  for (const ExpertJob& job : jobs) {
    if (job.tokens <= 0) continue;
    const Resident& resident = find(job.expert);
    if (!undone.contains(&job)) {
      ++counters_.experts;
      counters_.rows += job.tokens;
    }
    if (resident.layout != Layout::kSplit || !job.x) continue;
    for (size_t part = 0; part < resident.held.size(); ++part, ++partial)
      for (size_t i = 0; i < partial->size(); ++i)
        job.out[i] = part == 0 ? (*partial)[i] : job.out[i] + (*partial)[i];
  }
}

}  // namespace trimoe::ndp
