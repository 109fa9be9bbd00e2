#include "ndp/system/dimm.h"

#include <algorithm>

#include "ndp/dimm/rates.h"

namespace trimoe::ndp {
namespace {

constexpr double kResetNs = 1000;

uint8_t mask_of(const Descriptor& descriptor) {
  return descriptor.has(kAllRanks) ? 0xff : descriptor.rank_mask;
}

}  // namespace

double Dimm::command_ns() const { return ndp::command_ns(*state_.config.spec); }

Status Dimm::submit(const Descriptor& descriptor, const Payload& payload) {
  const NdpCommand* command = find_command(descriptor.opcode);
  if (command && command->is_immediate) return submit_now(descriptor, payload, *command);
  if (std::ssize(ring_) >= state_.config.ring) return Status::kQueueFull;
  ended_.erase(descriptor.tag);
  ring_.push_back({descriptor, payload, now_ns_});
  return Status::kOk;
}

double Dimm::start_of(const Waiting& waiting) const {
  const Descriptor& d = waiting.descriptor;
  const NdpCommand* command = find_command(d.opcode);
  const bool fence = d.has(kFenceBefore) || !command || !command->takes_ranks;
  double start = std::max(waiting.submitted_ns + command_ns(), last_start_ns_);
  for (const Flight& flight : flights_) {
    if (fence || !flight.takes_ranks || (d.dep_tag != 0 && flight.end.tag == d.dep_tag))
      start = std::max(start, flight.retires_ns);
    else if (flight.rank_mask & mask_of(d))
      start = std::max(start, flight.end.done_ns);
  }
  for (size_t rank = 0; rank < state_.ranks.size(); ++rank)
    if (mask_of(d) >> rank & 1) start = std::max(start, state_.ranks[rank].free_ns);
  return start;
}

Outcome Dimm::plan(const Waiting& waiting, const NdpCommand* command, double start_ns) {
  const Descriptor& d = waiting.descriptor;
  if (!is_intact(d)) return refused(Status::kBadCrc);
  if (!command) return refused(Status::kBadOpcode);
  const auto needed = ended_.find(d.dep_tag);
  if (d.dep_tag != 0 && needed != ended_.end() && needed->second != Status::kOk)
    return refused(Status::kAborted);
  const Call call{state_, d, waiting.payload, start_ns};
  if (command->takes_ranks)
    for (const int rank : call.ranks())
      if (state_.ranks[static_cast<size_t>(rank)].mode == Mode::kHost) return refused(Status::kMode);
  return command->plan(call);
}

void Dimm::issue(const Waiting& waiting, double start_ns) {
  const FaultEvent event = faults_.next();
  Waiting seen = waiting;
  if (event.fault == Fault::kCorrupt) seen.descriptor.bytes ^= 1u << 7;
  const NdpCommand* command = find_command(seen.descriptor.opcode);
  const bool answers = !is_stuck_ && !state_.is_dead(start_ns);
  Outcome outcome = answers ? plan(seen, command, start_ns) : refused(Status::kTimeout);
  if (outcome.status == Status::kOk && event.fault == Fault::kEcc) outcome = refused(Status::kEcc);

  const Descriptor& d = seen.descriptor;
  const bool takes_ranks = command && command->takes_ranks;
  Flight flight{{d.tag, d.opcode, outcome.status, waiting.submitted_ns, start_ns, start_ns + outcome.ns},
                takes_ranks ? mask_of(d) : uint8_t{0},
                d.flags,
                takes_ranks,
                0,
                1,
                std::move(outcome.effect)};
  const double timeout = state_.config.timeout_ns;
  if (!answers) {
    flight.end.done_ns += timeout;
  } else if (outcome.status == Status::kOk) {
    const double at = start_ns + event.at * outcome.ns;
    if (event.fault == Fault::kDeath) state_.dies_at_ns = std::min(state_.dies_at_ns, at);
    if (event.fault == Fault::kTimeout) is_stuck_ = true;
    if (state_.is_dead(flight.end.done_ns))
      stop(flight, state_.dies_at_ns, Status::kTimeout, flight.end.done_ns + timeout);
    else if (is_stuck_)
      stop(flight, at, Status::kTimeout, flight.end.done_ns + timeout);
  }
  last_start_ns_ = start_ns;
  state_.counters.busy_ns += std::max(0.0, flight.end.done_ns - std::max(start_ns, busy_until_ns_));
  busy_until_ns_ = std::max(busy_until_ns_, flight.end.done_ns);
  flights_.push_back(std::move(flight));
  set_retirements();
}

// A command that ends otherwise than it began: its effect learns how far it came.
void Dimm::stop(Flight& flight, double at_ns, Status status, double done_ns) {
  const double length = flight.end.done_ns - flight.end.start_ns;
  flight.share = length > 0 ? std::clamp((at_ns - flight.end.start_ns) / length, 0.0, 1.0 - 1e-9) : 0;
  flight.end.status = status;
  flight.end.done_ns = done_ns;
}

void Dimm::set_retirements() {
  double before = last_retired_ns_;
  for (Flight& flight : flights_) before = flight.retires_ns = std::max(before, flight.end.done_ns);
}

void Dimm::retire(double until_ns) {
  while (!flights_.empty() && flights_.front().retires_ns <= until_ns) {
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    finish(flight);
  }
}

void Dimm::finish(const Flight& flight) {
  last_retired_ns_ = flight.retires_ns;
  for (size_t rank = 0; rank < state_.ranks.size(); ++rank)
    if (flight.rank_mask >> rank & 1)
      state_.ranks[rank].free_ns = std::max(state_.ranks[rank].free_ns, flight.end.done_ns);
  Ended end = flight.end;
  end.done_ns = flight.retires_ns;
  if (flight.effect) {
    const Status found = flight.effect(flight.share);
    if (end.status == Status::kOk) end.status = found;
  }
  complete(end, flight.flags);
}

void Dimm::complete(const Ended& end, uint8_t flags) {
  if (end.tag != 0) ended_[end.tag] = end.status;
  if (end.status == Status::kOk)
    ++state_.counters.completed[end.opcode];
  else
    ++state_.counters.failed;
  if (flags & (kIrqWhenDone | kLastInBatch)) state_.irq_pending = true;
  completions_.push_back(end);
}

void Dimm::advance(double to_ns) {
  while (!ring_.empty()) {
    const double start = start_of(ring_.front());
    if (start > to_ns) break;
    retire(start);
    const Waiting next = ring_.front();
    ring_.pop_front();
    issue(next, start);
  }
  retire(to_ns);
  now_ns_ = std::max(now_ns_, to_ns);
  const auto clock = static_cast<int64_t>(now_ns_ / state_.config.spec->clock_ns);
  for (Rank& rank : state_.ranks) catch_up(rank.refresh, clock);
}

double Dimm::run() {
  while (!is_idle()) advance(flights_.empty() ? start_of(ring_.front()) : flights_.back().retires_ns);
  return now_ns_;
}

std::optional<Ended> Dimm::poll() {
  if (completions_.empty()) return std::nullopt;
  const Ended oldest = completions_.front();
  completions_.pop_front();
  return oldest;
}

void Dimm::kill(double at_ns) {
  state_.dies_at_ns = std::min(state_.dies_at_ns, std::max(at_ns, now_ns_));
  for (Flight& flight : flights_)
    if (flight.end.done_ns > state_.dies_at_ns && flight.end.status == Status::kOk)
      stop(flight, state_.dies_at_ns, Status::kTimeout, flight.end.done_ns + state_.config.timeout_ns);
  set_retirements();
}

Status Dimm::submit_now(const Descriptor& descriptor, const Payload& payload, const NdpCommand& command) {
  const double at = now_ns_ + command_ns();
  Ended end{descriptor.tag, descriptor.opcode, Status::kOk, now_ns_, at, at};
  const auto opcode = static_cast<Opcode>(descriptor.opcode);
  if (!is_intact(descriptor)) {
    end.status = Status::kBadCrc;
  } else if (state_.is_dead(at) || (is_stuck_ && opcode != Opcode::kReset)) {
    end.status = Status::kTimeout;
    end.done_ns += state_.config.timeout_ns;
  } else if (opcode == Opcode::kAbort) {
    stop_all(at);
  } else if (opcode == Opcode::kReset) {
    reset(at);
    end.done_ns = now_ns_;
  } else {
    const Outcome outcome = command.plan({state_, descriptor, payload, at});
    end.status = outcome.status == Status::kOk ? outcome.effect(1) : outcome.status;
    end.done_ns += outcome.ns;
  }
  advance(end.done_ns);
  complete(end, descriptor.flags);
  return end.status;
}

void Dimm::stop_all(double at_ns) {
  advance(at_ns);
  const DramSpec& spec = *state_.config.spec;
  const double row_ns = (spec.timing.nRAS + spec.timing.nRP) * spec.clock_ns;  // the row in work is finished
  for (Flight& flight : flights_)
    if (flight.end.done_ns > at_ns + row_ns) stop(flight, at_ns, Status::kAborted, at_ns + row_ns);
  set_retirements();
  retire(at_ns + row_ns);
  for (const Waiting& waiting : ring_) {
    const Descriptor& d = waiting.descriptor;
    complete({d.tag, d.opcode, Status::kAborted, waiting.submitted_ns, at_ns, at_ns}, d.flags);
  }
  ring_.clear();
}

void Dimm::reset(double at_ns) {
  stop_all(at_ns);
  for (const Flight& flight : flights_) finish(flight);  // what hung does so no longer
  flights_.clear();
  is_stuck_ = false;
  state_.slots.clear();
  state_.windows.clear();
  state_.irq_masked = state_.irq_pending = false;
  now_ns_ = last_start_ns_ = last_retired_ns_ = at_ns + kResetNs;
  const auto clock = static_cast<int64_t>(now_ns_ / state_.config.spec->clock_ns);
  for (Rank& rank : state_.ranks) {
    std::fill(rank.buffer.begin(), rank.buffer.end(), std::byte{0});
    catch_up(rank.refresh, clock);
    rank.refresh.transfer(Owner::kHost, clock);
    rank.mode = Mode::kHost;
    rank.free_ns = now_ns_;
  }
}

}  // namespace trimoe::ndp
