// The banks of one rank that host and NDP share: which command goes next, who refreshes, what a switch costs.
#pragma once

#include <deque>
#include <vector>

#include "ndp/dram/device.h"
#include "ndp/sharing/command_path.h"
#include "ndp/sharing/mode.h"

namespace trimoe::ndp {

struct RankRequest {
  Place place;
  Owner from = Owner::kHost;
  bool write = false;
  int64_t arrival = 0;  // clock
  int64_t tag = 0;      // the caller's
  int commands = 1;     // that the host sends for it when it is offloaded
};

struct Served {
  RankRequest request;
  int64_t issued;    // clock of its column command
  int64_t data_end;  // behind its data on the rank's own bus
};

// What was done, for tests and timelines. from: whose request, or who refreshes; tag: of a column command.
struct RankCommand {
  int64_t clock;
  const char* name;  // of the command, or the mode that is switched to
  int bank, row;
  Owner from;
  int64_t tag;
};

struct RankPolicy {
  int row_hit_cap = 16;  // bursts of the NDP that may pass a host request before its bank is the host's
  int postpone = 0;      // refreshes that may be owed before they are issued, all of them then
  int host_queue = 32;   // reads, and as many writes, that the host's controller looks at
  int drain_from = 24;   // writes that are worth a turn of the data bus
  int fifo = 8;          // offloaded requests of a bank, and as many commands
};

class SharedRank {
 public:
  SharedRank(const DramSpec& spec, const RankPolicy& policy, std::vector<RankCommand>* trace = nullptr);

  const Device& device() const { return device_; }
  const RefreshLedger& ledger() const { return ledger_; }
  Mode mode() const { return mode_; }
  int64_t now() const { return now_; }
  int64_t switches() const { return switches_; }
  int64_t waiting_reads() const { return n_reads_; }  // of the host
  int64_t waiting_writes() const { return n_writes_; }
  int64_t waiting_ndp() const { return n_ndp_; }
  int deepest_fifo() const { return deepest_fifo_; }  // requests that a bank's had at once
  int deepest_commands() const { return deepest_commands_; }

  // Whether the queue of the host's controller, or in kConcurrent the FIFOs of the bank, take it.
  bool has_room(const RankRequest& request) const;
  void push(const RankRequest& request);

  // Issues one command, at the earliest clock that one can be issued, or goes on to `limit` if that is
  // sooner. True when it was a column command, whose request is then in `served`.
  bool step(int64_t limit, Served& served);

  // Closes all rows and hands the rank over; now() is then the first clock of the new owner. What waits goes
  // on waiting. Throws Error out of kConcurrent while offloaded requests wait.
  void switch_to(Mode mode);

 private:
  struct Entry {
    RankRequest request;
    int64_t order;   // of arrival
    int64_t passed;  // bursts of the NDP before it came
  };
  struct Choice {
    int64_t at;
    Command command = Command::kCount;
    int bank = 0;
    std::deque<Entry>* queue = nullptr;
    bool is_column() const { return command == Command::kRead || command == Command::kWrite; }
    bool before(const Choice& other) const;
  };
  using Queues = std::vector<std::deque<Entry>>;  // one a bank, oldest first

  bool serves_host() const { return mode_ != Mode::kExclusive; }
  bool serves_ndp() const { return mode_ != Mode::kHost; }
  bool overdue(const Entry& entry, int64_t bursts) const { return ndp_bursts_ - entry.passed >= bursts; }
  void choose_direction();
  std::deque<Entry>* next_of(int bank);
  Choice choose();
  Choice choose_refresh() const;
  Served serve(const Choice& choice);
  void issue(Command command, int bank, int row, Owner from, int64_t tag);

  Device device_;
  RefreshLedger ledger_;
  RankPolicy policy_;
  std::vector<RankCommand>* trace_;
  Queues reads_, writes_, ndp_;
  std::vector<int> fifo_commands_;  // of each bank, offloaded and not served
  int64_t n_reads_ = 0, n_writes_ = 0, n_ndp_ = 0;
  int64_t pushed_ = 0, ndp_bursts_ = 0, switches_ = 0;
  int64_t now_ = 0;
  int deepest_fifo_ = 0, deepest_commands_ = 0;
  Mode mode_ = Mode::kHost;
  bool writing_ = false, refreshing_ = false;
};

}  // namespace trimoe::ndp
