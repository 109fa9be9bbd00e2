#include "ndp/sharing/sharing.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/names.h"

namespace trimoe::ndp {
namespace {

constexpr int kSubChannelsOfDimm = 2;
constexpr double kWarmUp = 0.1;  // of the duration

int64_t clocks_of(const DramSpec& spec, double ns) { return std::llround(ns / spec.clock_ns); }

// One sub-channel of the shared rank, from a host alone through the mode asked for and back.
class Simulation {
 public:
  Simulation(const DramSpec& spec, const SharingCase& one, std::vector<RankCommand>* trace)
      : spec_(spec),
        case_(one),
        rank_(spec, one.policy, trace),
        host_(spec,
              {.gbps = one.host_gbps / kSubChannelsOfDimm,
               .pattern = one.pattern,
               .write_pct = one.write_pct,
               .outstanding = one.host_outstanding,
               .seed = one.seed},
              one.ranks),
        weights_(spec, 1, Pattern::kStream, one.seed),
        window_(one.max_window_ns > 0 ? clocks_of(spec, one.max_window_ns) : spec.timing.nREFI),
        end_(clocks_of(spec, one.duration_ns)),
        start_(std::llround(kWarmUp * static_cast<double>(end_))) {}

  void run() {
    if (case_.mode != Mode::kHost) switch_to(case_.mode);
    while (!done()) {
      host_.arrive(rank_.now(), end_);
      host_.feed(rank_);
      ask();
      take_turns();
      step();
      host_.answer(rank_);
    }
    if (rank_.mode() != Mode::kHost) switch_to(Mode::kHost);
  }

  const SharedRank& rank() const { return rank_; }
  const HostPort& host() const { return host_; }
  double gbps(Owner owner) const {
    return static_cast<double>(bursts_[static_cast<size_t>(owner)] * spec_.geometry.burst_bytes) /
           (static_cast<double>(end_ - start_) * spec_.clock_ns);
  }
  int64_t start() const { return start_; }
  int64_t asked() const { return asked_; }
  int64_t given() const { return given_; }

 private:
  bool done() const { return rank_.now() >= end_ && host_.is_idle() && asked_ == given_; }

  // The NDP asks ahead, as its stream is known; in kHost it is off.
  void ask() {
    if (case_.mode == Mode::kHost || rank_.now() >= end_) return;
    while (asked_ - given_ < case_.ndp_window) {
      RankRequest request;
      request.place = weights_.next();
      request.place.row %= spec_.geometry.rows / 2;
      request.from = Owner::kNdp;
      request.arrival = rank_.now();
      request.tag = asked_++;
      rank_.push(request);
    }
  }

  // A host that has nothing to ask for gives the rank back at once; an NDP at the end of its window, if there
  // is a host that waits.
  void take_turns() {
    if (case_.mode != Mode::kExclusive) return;
    const bool host_waits = rank_.waiting_reads() + rank_.waiting_writes() > 0;
    const bool over = rank_.now() >= window_end_, closing = rank_.now() >= end_;
    if (rank_.mode() == Mode::kHost) {
      if (over || !host_waits) switch_to(Mode::kExclusive);
    } else if (host_waits && (over || (closing && rank_.waiting_ndp() == 0))) {
      switch_to(Mode::kHost);
    } else if (over) {
      window_end_ = rank_.now() + window_;
    }
  }

  void switch_to(Mode mode) {
    rank_.switch_to(mode);
    window_end_ = rank_.now() + window_;
  }

  void step() {
    int64_t limit = host_.next_event(rank_.now());
    if (case_.mode == Mode::kExclusive && window_end_ > rank_.now()) limit = std::min(limit, window_end_);
    if (rank_.now() < end_) limit = std::min(limit, end_);
    Served served{};
    if (!rank_.step(limit, served)) return;
    const Owner owner = served.request.from;
    if (served.issued >= start_ && served.issued < end_) ++bursts_[static_cast<size_t>(owner)];
    if (owner == Owner::kHost)
      host_.served(served, rank_.mode());
    else
      ++given_;
  }

  DramSpec spec_;
  SharingCase case_;
  SharedRank rank_;
  HostPort host_;
  Traffic weights_;
  int64_t window_, window_end_ = 0, end_, start_;
  int64_t asked_ = 0, given_ = 0;
  std::array<int64_t, kOwners> bursts_{};
};

void check_case(const DramSpec& spec, const SharingCase& one) {
  check(one.ranks >= 1 && one.ranks <= kMaxRanks, "1 to 8 ranks", one.ranks, "4");
  check(one.host_gbps >= 0 && one.host_gbps <= kSubChannelsOfDimm * spec.peak_gbps(),
        "a host between 0 and the peak of the channel, in GB/s", one.host_gbps, "10");
  check(one.write_pct >= 0 && one.write_pct <= 100, "a share of writes of 0 to 100 %", one.write_pct, "0");
  check(one.max_window_ns == 0 || (one.max_window_ns >= 100 && one.max_window_ns <= 1e6),
        "windows of 100 ns to 1 ms", one.max_window_ns, "0 for one nREFI");
  check(one.duration_ns >= 20'000 && one.duration_ns <= 1e8, "20 us to 100 ms", one.duration_ns, "300000 ns");
  check(one.ndp_window >= 1 && one.ndp_window <= 4096, "1 to 4096 bursts ahead", one.ndp_window, "64");
  check(one.host_outstanding >= 1 && one.host_outstanding <= 1'000'000, "1 to 10^6 requests outstanding",
        one.host_outstanding, "1024");
}

void set_latency(const Simulation& simulation, double clock_ns, SharingResult& result) {
  std::vector<int64_t> waits;
  for (const HostPort::Answer& one : simulation.host().answers())
    if (!one.write && one.arrival >= simulation.start()) waits.push_back(one.end - one.arrival);
  result.host_reads = std::ssize(waits);
  if (waits.empty()) return;
  std::ranges::sort(waits);
  double sum = 0;
  for (const int64_t wait : waits) sum += static_cast<double>(wait);
  result.latency_min_ns = static_cast<double>(waits.front()) * clock_ns;
  result.latency_mean_ns = sum / static_cast<double>(waits.size()) * clock_ns;
  result.latency_p99_ns = static_cast<double>(waits[waits.size() * 99 / 100]) * clock_ns;
  result.latency_max_ns = static_cast<double>(waits.back()) * clock_ns;
}

void set_counts(const Simulation& simulation, SharingResult& result) {
  const RefreshLedger& ledger = simulation.rank().ledger();
  const Device& device = simulation.rank().device();
  result.switches = simulation.rank().switches();
  result.host_refreshes = ledger.issued(Owner::kHost);
  result.ndp_refreshes = ledger.issued(Owner::kNdp);
  result.due_refreshes = ledger.due(simulation.rank().now());
  result.largest_debt = ledger.largest_debt();
  result.host_requests = std::ssize(simulation.host().answers());
  result.host_served_once = std::ranges::count(simulation.host().answers(), 1,
                                               [](const HostPort::Answer& answer) { return answer.times; });
  result.ndp_requests = simulation.asked();
  result.ndp_served = simulation.given();
  result.reads = device.issued(Command::kRead);
  result.writes = device.issued(Command::kWrite);
  result.deepest_fifo = simulation.rank().deepest_fifo();
  result.deepest_commands = simulation.rank().deepest_commands();
  result.clocks = simulation.rank().now();
}

}  // namespace

Mode mode_named(std::string_view name) { return static_cast<Mode>(index_of(kModeNames, name, "a mode")); }

SharingResult simulate_sharing(const DramSpec& spec, const SharingCase& one,
                               std::vector<RankCommand>* trace) {
  check_case(spec, one);
  SharingCase alone = one;
  alone.mode = Mode::kExclusive;
  alone.host_gbps = 0;
  Simulation undisturbed(spec, alone, nullptr), shared(spec, one, trace);
  undisturbed.run();
  shared.run();
  SharingResult result{};
  result.rank_gbps = kSubChannelsOfDimm * undisturbed.gbps(Owner::kNdp);
  result.undisturbed_gbps = one.ranks * result.rank_gbps;
  result.shared_rank_gbps = kSubChannelsOfDimm * shared.gbps(Owner::kNdp);
  result.host_gbps = kSubChannelsOfDimm * shared.gbps(Owner::kHost);
  if (one.mode != Mode::kHost) {
    result.ndp_gbps = (one.ranks - 1) * result.rank_gbps + result.shared_rank_gbps;
    const double left = result.undisturbed_gbps - result.host_gbps;
    result.row_switch_loss = left > 0 ? 1 - result.ndp_gbps / left : 0;
  }
  set_latency(shared, spec.clock_ns, result);
  set_counts(shared, result);
  return result;
}

double ndp_share(const DramSpec& spec, const SharingCase& one) { return simulate_sharing(spec, one).share(); }

}  // namespace trimoe::ndp
