#include "ndp/timing/step.h"

#include <algorithm>
#include <map>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

using Queue = std::vector<const ExpertTime*>;

// One DIMM of a channel: what it runs, and when it wants the channel next.
struct Worker {
  const Queue* queue;
  size_t next = 0;
  bool has_results = false;  // of queue[next]: it wants the channel for them, else for activations
  double ready_ns = 0;
  bool is_done() const { return next == queue->size(); }
};

struct Shared {
  double end_ns = 0, wait_ns = 0;
};

double on_dimm_ns(const ExpertTime& one) {
  return one.gate_up_ns + one.down_ns + one.gather_ns + one.reduce_ns;
}

// The DIMMs of one channel from the start of a layer to the last of their results.
Shared run_channel(std::span<const Queue> queues) {
  std::vector<Worker> workers;
  for (const Queue& queue : queues)
    if (!queue.empty()) workers.push_back({&queue, 0, false, queue.front()->command_ns});
  Shared result;
  for (double free_ns = 0; !workers.empty();) {
    // Of those that wait equally long, the first.
    auto& worker = *std::ranges::min_element(workers, {}, &Worker::ready_ns);
    const ExpertTime& one = *(*worker.queue)[worker.next];
    const double start_ns = std::max(free_ns, worker.ready_ns);
    result.wait_ns += start_ns - worker.ready_ns;
    free_ns = start_ns + (worker.has_results ? one.result_ns : one.broadcast_ns);
    worker.ready_ns = free_ns;
    if (!worker.has_results) {
      worker.ready_ns += on_dimm_ns(one);
    } else if (++worker.next < worker.queue->size()) {
      worker.ready_ns += (*worker.queue)[worker.next]->command_ns;
    }
    worker.has_results = !worker.has_results;
    result.end_ns = std::max(result.end_ns, free_ns);
    std::erase_if(workers, [](const Worker& each) { return each.is_done(); });
  }
  return result;
}

void check_step(const StepCase& step, std::span<const int64_t> tokens, std::span<const int64_t> home) {
  check(step.dimms >= 1 && step.dimms <= 4096, "1 to 4096 DIMMs", step.dimms, "16");
  check(step.dimms_per_channel >= 1, "one DIMM or more on a channel", step.dimms_per_channel, "2");
  check(step.layers >= 1 && step.experts >= 1 && step.layers <= (int64_t{1} << 24) / step.experts,
        "1 to 2^24 experts in all layers", std::min(step.layers, step.experts), "60 layers of 160");
  check(std::ssize(tokens) == step.layers * step.experts && tokens.size() == home.size(),
        "tokens and a DIMM for every expert of every layer", std::ssize(tokens), "[layers, experts] of both");
  for (const int64_t count : tokens) check(count >= 0, "counts of tokens from 0 on", count, "0");
  for (const int64_t dimm : home)
    check(dimm >= 0 && dimm < step.dimms, "a DIMM from 0 to the last for every expert", dimm,
          "expert % dimms");
}

}  // namespace

StepTime simulate_step(const DramSpec& spec, const CoreConfig& core, const ExpertCase& shape,
                       const StepCase& step, std::span<const int64_t> tokens, std::span<const int64_t> home) {
  check_step(step, tokens, home);
  StepTime time{};
  time.busy_ns.resize(static_cast<size_t>(step.dimms));
  std::map<int64_t, ExpertTime> times;  // by tokens
  std::vector<Queue> queues(static_cast<size_t>(step.dimms));
  for (size_t layer = 0, i = 0; layer < static_cast<size_t>(step.layers); ++layer) {
    for (Queue& queue : queues) queue.clear();
    for (int64_t expert = 0; expert < step.experts; ++expert, ++i) {
      if (tokens[i] == 0) continue;
      auto found = times.find(tokens[i]);
      if (found == times.end()) {
        ExpertCase one = shape;
        one.tokens = tokens[i];
        found = times.emplace(tokens[i], expert_time(spec, core, one)).first;
      }
      const ExpertTime& one = found->second;
      const auto dimm = static_cast<size_t>(home[i]);
      queues[dimm].push_back(&one);
      time.busy_ns[dimm] += one.total_ns();
      time.dram_nj += one.dram_nj;
      time.channel_nj += one.channel_nj;
      ++time.experts_run;
    }
    double layer_ns = 0;
    for (size_t first = 0; first < queues.size(); first += static_cast<size_t>(step.dimms_per_channel)) {
      const size_t count = std::min(queues.size() - first, static_cast<size_t>(step.dimms_per_channel));
      const Shared channel = run_channel(std::span(queues).subspan(first, count));
      layer_ns = std::max(layer_ns, channel.end_ns);
      time.channel_wait_ns += channel.wait_ns;
    }
    time.layer_ns.push_back(layer_ns);
    time.total_ns += layer_ns;
  }
  return time;
}

}  // namespace trimoe::ndp
