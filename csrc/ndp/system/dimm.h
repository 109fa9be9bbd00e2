// A DIMM in time: the ring that the host writes descriptors to, and what becomes of them.
#pragma once

#include <deque>
#include <optional>
#include <unordered_map>

#include "ndp/commands/command.h"
#include "ndp/dimm/faults.h"

namespace trimoe::ndp {

// A command that has ended. Completions come in the order of the ring.
struct Ended {
  uint16_t tag = 0;
  uint8_t opcode = 0;
  Status status = Status::kOk;
  double submitted_ns = 0, start_ns = 0, done_ns = 0;
};

// Commands start in the order of the ring, each when its ranks are free, the tag that it depends on is
// complete and, unless it takes ranks, all before it are. Time is the host's to advance: nothing happens by
// itself.
class Dimm {
 public:
  Dimm(int id, const DimmConfig& config, Peers* peers) : state_(id, config, peers) {}

  DimmState& state() { return state_; }
  const DimmState& state() const { return state_; }
  Faults& faults() { return faults_; }
  double now_ns() const { return now_ns_; }
  bool is_idle() const { return ring_.empty() && flights_.empty(); }

  // Writes a descriptor at now_ns(). QUEUE_FULL: not written. What its payload shows must stay until it is
  // complete. STATUS, IRQ, ABORT and RESET do not wait in the ring and are complete when this returns.
  Status submit(const Descriptor& descriptor, const Payload& payload = {});

  // Everything that happens until then; back in time nothing does.
  void advance(double to_ns);
  // Until all that was submitted has ended; returns now_ns().
  double run();

  // The oldest completion that was not polled yet.
  std::optional<Ended> poll();
  bool interrupt() const { return state_.irq_pending && !state_.irq_masked; }

  // From then on it does not answer. Its memory stays as it is, and readable by the host.
  void kill(double at_ns);

 private:
  struct Waiting {
    Descriptor descriptor;
    Payload payload;
    double submitted_ns;
  };
  struct Flight {
    Ended end;  // done_ns: when the ranks are free again
    uint8_t rank_mask, flags;
    bool takes_ranks;
    double retires_ns;
    double share;  // of the time that passed before it was stopped
    std::function<Status(double)> effect;
  };

  double command_ns() const;
  double start_of(const Waiting& waiting) const;
  void issue(const Waiting& waiting, double start_ns);
  Outcome plan(const Waiting& waiting, const NdpCommand* command, double start_ns);
  void stop(Flight& flight, double at_ns, Status status, double done_ns);
  void retire(double until_ns);
  void finish(const Flight& flight);
  void complete(const Ended& end, uint8_t flags);
  Status submit_now(const Descriptor& descriptor, const Payload& payload, const NdpCommand& command);
  void stop_all(double at_ns);
  void reset(double at_ns);
  void set_retirements();

  DimmState state_;
  Faults faults_;
  std::deque<Waiting> ring_;
  std::deque<Flight> flights_;  // in order of the ring
  std::deque<Ended> completions_;
  std::unordered_map<uint16_t, Status> ended_;  // by tag
  double now_ns_ = 0, last_start_ns_ = 0, last_retired_ns_ = 0, busy_until_ns_ = 0;
  bool is_stuck_ = false;
};

}  // namespace trimoe::ndp
