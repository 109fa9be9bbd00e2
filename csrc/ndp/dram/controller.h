// The memory controller of one sub-channel: first ready, first come, first served; rows stay open; refresh of
// all banks at once.
#pragma once

#include <vector>

#include "ndp/dram/waiting.h"

namespace trimoe::ndp {

struct Completion {
  Request request;
  int64_t data_end;  // clock behind its last data
};

struct ControllerOptions {
  bool refresh = true;
  int queue = 32;            // requests of each kind, at most 63
  int drain_from = 24;       // writes that are worth a turn of the data bus; all go then
  int refresh_apart = 1000;  // clocks between the refreshes of two ranks
};

// A command as it was issued.
struct Issued {
  int64_t at;
  int bank;  // in the sub-channel; of a command to a whole rank its first
  int row;   // of an activate
  Command command;
};

class Controller {
 public:
  Controller(const DramSpec& spec, int ranks, const ControllerOptions& options);

  const Device& device() const { return device_; }
  int64_t now() const { return now_; }
  int64_t idle_from() const { return idle_from_; }  // clock behind the last data on the bus
  bool has_room(bool write) const { return waiting_[write].size() < options_.queue; }

  // There must be room, and it must have arrived. The scheduler sees it one clock after its arrival, and not
  // before those that were pushed earlier.
  void push(const Request& request);

  // Issues one command, at the earliest clock that one can be issued, or goes on to `limit` if that is
  // sooner. True when it completed a request, which is then in `done`.
  bool step(int64_t limit, Completion& done);

  // Appends every command to `log` from now on; null: no longer.
  void record(std::vector<Issued>* log) { log_ = log; }

 private:
  struct Choice {
    Command command = Command::kCount;
    int bank = 0;
    int64_t at = 0;
    int slot = 0;  // of the request, if it is for one
  };

  bool is_draining(int rank) const { return now_ >= due_[static_cast<size_t>(rank)]; }
  uint64_t draining() const;
  void choose_direction();
  Choice choose_refresh() const;
  Choice choose_request() const;
  void issue(const Choice& choice);

  Device device_;
  ControllerOptions options_;
  Waiting waiting_[2];        // reads, writes
  int64_t seen_ = 0;          // the last one pushed
  std::vector<int64_t> due_;  // per rank: its next refresh
  int64_t next_due_;          // of all
  bool writing_ = false;
  int64_t now_ = 0, idle_from_ = 0;
  std::vector<Issued>* log_ = nullptr;
};

}  // namespace trimoe::ndp
