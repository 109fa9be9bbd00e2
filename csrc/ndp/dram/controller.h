// The memory controller of one sub-channel: first ready, first come, first served; rows stay open; refresh of
// all banks at once.
#pragma once

#include <vector>

#include "ndp/dram/device.h"

namespace trimoe::ndp {

struct Request {
  Place place;
  bool write = false;
  int64_t arrival = 0;  // clock
  int64_t tag = 0;      // the caller's
};

struct Completion {
  Request request;
  int64_t data_end;  // clock behind its last data
};

struct ControllerOptions {
  bool refresh = true;
  int queue = 32;            // requests of each kind
  int drain_from = 24;       // writes that are worth a turn of the data bus; all go then
  int refresh_apart = 1000;  // clocks between the refreshes of two ranks
};

class Controller {
 public:
  Controller(const DramSpec& spec, int ranks, const ControllerOptions& options);

  const Device& device() const { return device_; }
  int64_t now() const { return now_; }
  int64_t idle_from() const { return idle_from_; }  // clock behind the last data on the bus
  bool has_room(bool write) const { return std::ssize(queue(write)) < options_.queue; }

  // There must be room. Seen by the scheduler one clock after its arrival.
  void push(const Request& request);

  // Issues one command, at the earliest clock that one can be issued, or goes on to `limit` if that is
  // sooner. True when it completed a request, which is then in `done`.
  bool step(int64_t limit, Completion& done);

 private:
  struct Entry {
    Request request;
    int bank;
    int64_t order;  // of arrival, from 1 on
  };
  struct Choice {
    Command command = Command::kCount;
    int bank = 0;
    int64_t at = 0;
    size_t index = 0;  // in the active queue
    bool is_column() const { return command == Command::kRead || command == Command::kWrite; }
    bool before(const Choice& other) const {
      return at != other.at ? at < other.at : is_column() && !other.is_column();
    }
  };

  const std::vector<Entry>& queue(bool write) const { return write ? writes_ : reads_; }
  bool is_draining(int rank) const { return options_.refresh && now_ >= due_[static_cast<size_t>(rank)]; }
  void choose_direction();
  Choice choose_refresh() const;
  Choice choose_request() const;
  void count_hits();
  Completion complete(const Choice& choice);  // of a column command

  Device device_;
  ControllerOptions options_;
  std::vector<Entry> reads_, writes_;  // oldest first
  int64_t pushed_ = 0;
  int64_t hits_ = 0;  // waiting requests to open rows
  std::vector<int64_t>
      reserved_;              // per bank: order of the request that its row was opened for, while it waits
  std::vector<int64_t> due_;  // per rank: its next refresh
  bool writing_ = false;
  int64_t now_ = 0, idle_from_ = 0;
};

}  // namespace trimoe::ndp
