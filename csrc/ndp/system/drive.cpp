// How the host has a DIMM do something: descriptors, completions, and what they say.
#include <algorithm>
#include <chrono>

#include "common/layout.h"
#include "ndp/system/batch.h"
#include "ndp/system/fleet.h"

namespace trimoe::ndp {
namespace {

constexpr int kTries = 4;  // of a descriptor that arrives corrupt

template <typename T>
std::span<const std::byte> bytes_of(const T& one) {
  return std::as_bytes(std::span(&one, 1));
}

Descriptor descriptor_of(Opcode opcode, uint8_t flags = 0) {
  Descriptor d;
  d.opcode = static_cast<uint8_t>(opcode);
  d.flags = flags;
  d.rank_mask = 0xff;
  return d;
}

}  // namespace

void Fleet::reset(int index) {
  const std::lock_guard lock(mutex_);
  Descriptor d = descriptor_of(Opcode::kReset);
  seal(d);
  Dimm& one = dimm(index);
  const Status status = one.submit(d);
  while (one.poll()) {
  }
  if (status != Status::kOk) throw DimmError(index, status, "RESET");
  failures_.erase(index);
  // The host's own copy of the table. CFG_EXPERT could not say where a striped expert lies.
  for (const auto& [expert, resident] : residents_)
    if (resident.dimm == index) one.state().slots[resident.number] = resident.slot;
}

Status Fleet::command(int index, Descriptor descriptor, const Payload& payload) {
  Batch batch(dimm(index));
  batch.send(descriptor, 0, payload);
  return batch.wait();
}

Status Fleet::set_mode(int index, Mode mode) {
  Descriptor d = descriptor_of(Opcode::kModeSet);
  d.bytes = static_cast<uint32_t>(mode);
  return command(index, d);
}

Status Fleet::configure(const Resident& resident) {
  const ExpertShape& shape = resident.slot.shape;
  ExpertConfig config;
  config.hidden = static_cast<uint32_t>(shape.hidden);
  config.inter = static_cast<uint32_t>(shape.inter);
  config.group = static_cast<uint16_t>(shape.weights.group);
  config.activation = static_cast<uint8_t>(shape.activation.kind);
  config.gated = shape.activation.gated;
  config.bias = shape.bias;
  config.alpha = shape.activation.alpha;
  config.limit = shape.activation.limit;
  const auto number = static_cast<unsigned>(resident.slot.number) << kNumberShift;
  Descriptor d = descriptor_of(Opcode::kCfgExpert, static_cast<uint8_t>(number));
  d.slot = resident.number;
  d.weight_addr = local_of(resident.slot.pieces[0].address);
  d.stride = crc32c(&config, sizeof config);
  return command(resident.dimm, d, {bytes_of(config), {}});
}

// Between calls the host has all ranks, if need be after another try: a descriptor may have been lost.
void Fleet::return_ranks(int index) {
  const DimmState& state = dimm(index).state();
  for (int tries = 0; tries < kTries; ++tries) {
    const bool is_done = std::all_of(state.ranks.begin(), state.ranks.end(),
                                     [](const Rank& one) { return one.mode == Mode::kHost; });
    if (is_done || set_mode(index, Mode::kHost) == Status::kTimeout) return;
  }
}

// One job's tokens, as many at a time as fit the buffer.
void Fleet::send(Batch& batch, const ExpertJob& job, std::span<std::byte> unused) const {
  const Resident& resident = find(job.expert);
  const int64_t hidden = resident.slot.shape.hidden, fitting = tokens_that_fit(resident.slot.shape);
  for (int64_t first = 0; first < job.tokens; first += fitting) {
    const int64_t tokens = std::min(fitting, job.tokens - first);
    const auto values = static_cast<size_t>(tokens * hidden);
    std::span<const std::byte> x = unused.first(job.x ? 0 : values * sizeof(Bf16));
    std::span<std::byte> out = unused.first(job.x ? 0 : values * sizeof(float));
    if (job.x) {
      x = std::as_bytes(std::span(job.x + first * hidden, values));
      out = std::as_writable_bytes(std::span(job.out + first * hidden, values));
    }
    Descriptor load = descriptor_of(Opcode::kActBcast), run = descriptor_of(Opcode::kExpertFfn),
               read = descriptor_of(Opcode::kResRead, kWideResult);
    load.bytes = static_cast<uint32_t>(x.size());
    run.slot = resident.number;
    run.tokens = static_cast<uint16_t>(tokens);
    run.buf_out = static_cast<uint32_t>(round_up(load.bytes, kLineBytes));
    read.bytes = static_cast<uint32_t>(out.size());
    read.buf_in = run.buf_out;
    batch.send(read, batch.send(run, batch.send(load, 0, {x, {}})), {{}, out});
  }
}

Status Fleet::drive(int index, std::span<const ExpertJob* const> jobs) {
  DimmState& state = dimm(index).state();
  state.computes = jobs[0]->x != nullptr;
  thread_local std::vector<std::byte> unused;  // crosses the channel where nobody looks at it
  if (!state.computes)
    unused.resize(std::max(unused.size(), static_cast<size_t>(state.config.core.buffer_bytes)));
  Batch batch(dimm(index));
  Descriptor mode = descriptor_of(Opcode::kModeSet);
  mode.bytes = static_cast<uint32_t>(state.config.mode);
  batch.send(mode, 0);
  for (const ExpertJob* job : jobs) send(batch, *job, unused);
  mode.flags = kLastInBatch;
  mode.bytes = static_cast<uint32_t>(Mode::kHost);
  batch.send(mode, 0);
  const Status status = batch.wait();
  if (status != Status::kOk && status != Status::kTimeout) return_ranks(index);
  state.computes = true;
  return status;
}

double Fleet::run(std::span<const ExpertJob> jobs, const ThreadPool& pool) {
  const std::lock_guard lock(mutex_);
  std::map<int, std::vector<const ExpertJob*>> by_dimm;
  for (const ExpertJob& job : jobs) {
    const Resident& resident = find(job.expert);
    check(resident.slot.pieces.size() == 1, "an expert that lies on one DIMM", "a striped one",
          "relayout() to localized, or another domain");
    if (job.tokens > 0) by_dimm[resident.dimm].push_back(&job);
  }
  using Clock = std::chrono::steady_clock;
  const auto begun = Clock::now();
  const double start = start_step();
  const std::vector<std::pair<int, std::vector<const ExpertJob*>>> work(by_dimm.begin(), by_dimm.end());
  std::vector<Status> ended(work.size());
  parallel_tasks(pool, pool.max_workers(), std::ssize(work), [&](int64_t task, int64_t) {
    const auto& [dimm, batch] = work[static_cast<size_t>(task)];
    ended[static_cast<size_t>(task)] = drive(dimm, batch);
  });
  const double ns = step_ns(start);
  ++counters_.steps;
  counters_.busy_ns += ns;
  counters_.host_ns += std::chrono::nanoseconds(Clock::now() - begun).count();
  for (size_t i = 0; i < work.size(); ++i) {
    if (ended[i] != Status::kOk) {
      failures_[work[i].first] = ended[i];
      continue;
    }
    failures_.erase(work[i].first);
    for (const ExpertJob* job : work[i].second) {
      ++counters_.experts;
      counters_.rows += job->tokens;
    }
  }
  for (size_t i = 0; i < work.size(); ++i)
    if (ended[i] != Status::kOk) throw DimmError(work[i].first, ended[i], "its experts");
  return ns;
}

}  // namespace trimoe::ndp
