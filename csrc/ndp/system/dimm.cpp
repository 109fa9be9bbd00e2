#include "ndp/system/dimm.h"

#include <algorithm>

#include "ndp/dimm/rates.h"

namespace trimoe::ndp {
namespace {

constexpr double kResetNs = 1000;
constexpr double kAlmost = 1.0 - 1e-9;

uint8_t mask_of(const Descriptor& descriptor) {
  return descriptor.has(kAllRanks) ? 0xff : descriptor.rank_mask;
}

// Fields that no command knows what to do with.
bool has_unknown_fields(const Descriptor& d) {
  return d.subch_mask != 3 || d.rows_16 != 0 || d.cols_16 != 0 || d.reserved16 != 0 || d.reserved32 != 0;
}

}  // namespace

double Dimm::command_ns() const { return ndp::command_ns(*state_.config.spec); }

int64_t Dimm::clock() const { return static_cast<int64_t>(now_ns_ / state_.config.spec->clock_ns); }

Status Dimm::submit(const Descriptor& descriptor, const Payload& payload) {
  const NdpCommand* command = find_command(descriptor.opcode);
  const bool is_immediate = command && command->is_immediate;
  if (!is_immediate && std::ssize(ring_) >= state_.config.ring) return Status::kQueueFull;
  count_channel(state_, sizeof descriptor);
  if (is_immediate) return submit_now(descriptor, payload, *command);
  ring_.push_back({descriptor, payload, now_ns_});
  return Status::kOk;
}

double Dimm::start_of(const Waiting& waiting) const {
  const Descriptor& d = waiting.descriptor;
  const NdpCommand* command = find_command(d.opcode);
  const bool fence = d.has(kFenceBefore) || !command || command->takes == Takes::kNone;
  const double first = std::max(waiting.submitted_ns + command_ns(), last_start_ns_);
  double start = first;
  for (const Flight& flight : flights_) {
    if (fence || !flight.takes_ranks || (d.dep_tag != 0 && flight.end.tag == d.dep_tag))
      start = std::max(start, flight.retires_ns);
    else if (flight.rank_mask & mask_of(d))
      start = std::max(start, flight.end.done_ns);
  }
  for (size_t rank = 0; rank < state_.ranks.size(); ++rank)
    if (mask_of(d) >> rank & 1) start = std::max(start, state_.ranks[rank].free_ns);
  // A DIMM that does not answer keeps nobody waiting but for that.
  return state_.answers(start) ? start : std::max(first, std::min(start, state_.silent_ns()));
}

Outcome Dimm::plan(const Waiting& waiting, const NdpCommand* command, double start_ns) {
  const Descriptor& d = waiting.descriptor;
  if (!is_intact(d)) return refused(Status::kBadCrc);
  if (!command) return refused(Status::kBadOpcode);
  const auto needed = ended_.find(d.dep_tag);
  if (d.dep_tag != 0 && needed != ended_.end() && needed->second != Status::kOk)
    return refused(Status::kAborted);
  if (has_unknown_fields(d)) return refused(Status::kBadField);
  const Call call{state_, d, waiting.payload, start_ns};
  if (command->takes != Takes::kNone) {
    const std::vector<int> ranks = call.ranks();
    const size_t least = command->takes == Takes::kAllRanks ? state_.ranks.size() : 1;
    if (ranks.size() < least) return refused(Status::kBadField);
    for (const int rank : ranks)
      if (state_.ranks[static_cast<size_t>(rank)].mode == Mode::kHost) return refused(Status::kMode);
  }
  return command->plan(call);
}

void Dimm::issue(const Waiting& waiting, double start_ns) {
  const FaultEvent event = faults_.next();
  Waiting seen = waiting;
  if (event.fault == Fault::kCorrupt) seen.descriptor.bytes ^= 1u << 7;
  const Descriptor& d = seen.descriptor;
  const NdpCommand* command = find_command(d.opcode);
  const bool answers = state_.answers(start_ns), takes_ranks = command && command->takes != Takes::kNone;
  Outcome outcome = answers ? plan(seen, command, start_ns) : refused(Status::kTimeout);
  if (outcome.status == Status::kOk && event.fault == Fault::kEcc && command->reads_memory)
    outcome = refused(Status::kEcc);

  const double end_ns = start_ns + outcome.ns, at_ns = start_ns + event.at * outcome.ns;
  const double done_ns = answers ? end_ns : start_ns + state_.config.timeout_ns;
  if (outcome.status == Status::kOk) {
    if (event.fault == Fault::kDeath) state_.dies_at_ns = std::min(state_.dies_at_ns, at_ns);
    if (event.fault == Fault::kTimeout) state_.hangs_at_ns = std::min(state_.hangs_at_ns, at_ns);
    for (const int id : outcome.links) state_.peers->peer(id)->link_free_ns = end_ns;
  }
  flights_.push_back({{d.tag, d.opcode, outcome.status, waiting.submitted_ns, start_ns, done_ns},
                      takes_ranks ? mask_of(d) : uint8_t{0},
                      d.flags,
                      takes_ranks,
                      outcome.ns,
                      end_ns,
                      0,
                      std::move(outcome.effect),
                      std::move(outcome.links)});
  last_start_ns_ = start_ns;
  stop_silent();
}

// A command that ends otherwise than it began: its effect learns how far it came.
void Dimm::stop(Flight& flight, double at_ns, Status status, double done_ns) {
  at_ns = std::clamp(at_ns, flight.end.start_ns, flight.works_ns);
  for (const int id : flight.links) {
    DimmState& port = *state_.peers->peer(id);
    if (port.link_free_ns == flight.works_ns) port.link_free_ns = at_ns;
  }
  flight.works_ns = at_ns;
  flight.end.status = status;
  flight.end.done_ns = done_ns;
}

// What was in work when the DIMM fell silent has no end that the host could see.
void Dimm::stop_silent() {
  const double silent_ns = state_.silent_ns();
  for (Flight& flight : flights_)
    if (flight.end.status == Status::kOk && flight.end.done_ns >= silent_ns)
      stop(flight, silent_ns, Status::kTimeout, flight.end.done_ns + state_.config.timeout_ns);
  set_retirements();
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
    const bool whole = end.status == Status::kOk;
    const double worked_ns = flight.works_ns - end.start_ns;
    // Stopped is less than all of it, even at the very end.
    const double part = flight.ns > 0 ? std::min(worked_ns / flight.ns, kAlmost) : 0;
    const Status found = flight.effect(whole ? 1 : part);
    if (whole) end.status = found;
  }
  state_.counters.busy_ns += std::max(0.0, flight.works_ns - std::max(end.start_ns, busy_until_ns_));
  busy_until_ns_ = std::max(busy_until_ns_, flight.works_ns);
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
  refresh();
}

// By the owner of each rank, up to now; a DIMM that is dead owns none.
void Dimm::refresh() {
  const bool is_dead = state_.dies_at_ns <= now_ns_;
  const auto died = is_dead ? static_cast<int64_t>(state_.dies_at_ns / state_.config.spec->clock_ns) : 0;
  for (Rank& rank : state_.ranks) {
    if (is_dead && rank.mode != Mode::kHost) {
      catch_up(rank.refresh, died);
      rank.refresh.transfer(Owner::kHost, died);
      rank.mode = Mode::kHost;
    }
    catch_up(rank.refresh, clock());
  }
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

std::vector<Ended> Dimm::poll_after(size_t oldest) {
  const auto first = completions_.begin() + static_cast<ptrdiff_t>(std::min(oldest, completions_.size()));
  std::vector<Ended> found(first, completions_.end());
  completions_.erase(first, completions_.end());
  return found;
}

void Dimm::kill(double at_ns) {
  state_.dies_at_ns = std::min(state_.dies_at_ns, std::max(at_ns, now_ns_));
  stop_silent();
}

Status Dimm::submit_now(const Descriptor& descriptor, const Payload& payload, const NdpCommand& command) {
  const double submitted = now_ns_, at = submitted + command_ns();
  advance(at);
  Ended end{descriptor.tag, descriptor.opcode, Status::kOk, submitted, at, at};
  const auto opcode = static_cast<Opcode>(descriptor.opcode);
  const bool answers = at < (opcode == Opcode::kReset ? state_.dies_at_ns : state_.silent_ns());
  if (!is_intact(descriptor)) {
    end.status = Status::kBadCrc;
  } else if (!answers) {
    end.status = Status::kTimeout;
    end.done_ns += state_.config.timeout_ns;
  } else if (opcode == Opcode::kAbort) {
    end.done_ns = stop_all(at);
  } else if (opcode == Opcode::kReset) {
    end.done_ns = reset(at);
  } else {
    const Outcome outcome = command.plan({state_, descriptor, payload, at});
    end.status = outcome.status == Status::kOk ? outcome.effect(1) : outcome.status;
    end.done_ns += outcome.ns;
  }
  advance(end.done_ns);
  complete(end, descriptor.flags);
  return end.status;
}

// Returns when all has stopped.
double Dimm::stop_all(double at_ns) {
  const DramSpec& spec = *state_.config.spec;
  const double row_ns = (spec.timing.nRAS + spec.timing.nRP) * spec.clock_ns;  // the row in work is finished
  double last = at_ns;
  for (Flight& flight : flights_) {
    if (flight.end.done_ns > at_ns + row_ns) stop(flight, at_ns, Status::kAborted, at_ns + row_ns);
    last = std::max(last, flight.end.done_ns);
  }
  set_retirements();
  retire(last);
  last_retired_ns_ = std::max(last_retired_ns_, last);
  for (const Waiting& waiting : ring_) {
    const Descriptor& d = waiting.descriptor;
    complete({d.tag, d.opcode, Status::kAborted, waiting.submitted_ns, last, last}, d.flags);
  }
  ring_.clear();
  return last;
}

double Dimm::reset(double at_ns) {
  stop_all(at_ns);
  state_.hangs_at_ns = std::numeric_limits<double>::infinity();
  state_.slots.clear();
  state_.windows.clear();
  state_.irq_masked = state_.irq_pending = false;
  ended_.clear();
  now_ns_ = last_start_ns_ = last_retired_ns_ = at_ns + kResetNs;
  for (Rank& rank : state_.ranks) {
    std::fill(rank.buffer.begin(), rank.buffer.end(), std::byte{0});
    catch_up(rank.refresh, clock());
    rank.refresh.transfer(Owner::kHost, clock());
    rank.mode = Mode::kHost;
    rank.free_ns = now_ns_;
  }
  return now_ns_;
}

}  // namespace trimoe::ndp
