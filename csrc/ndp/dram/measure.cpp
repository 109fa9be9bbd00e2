#include "ndp/dram/measure.h"

#include <cmath>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr int64_t kIdleClocks = 1000;  // between two requests that must not see each other
constexpr int kIdleRequests = 2000;

double gbps_of(const DramSpec& spec, int64_t bursts, int64_t clocks) {
  return static_cast<double>(bursts * spec.geometry.burst_bytes) /
         (static_cast<double>(clocks) * spec.clock_ns);
}

// Requests one at a time, `place` of each, every row opened before.
template <typename PlaceOf>
double idle_ns(const DramSpec& spec, const PlaceOf& place_of) {
  ControllerOptions options;
  options.refresh = false;
  Controller controller(spec, 1, options);
  int64_t total = 0;
  for (int index = -1; index < kIdleRequests; ++index) {
    const int64_t start = controller.now() + kIdleClocks;
    Completion done{};
    while (!controller.step(start, done) && controller.now() < start) {
    }
    controller.push({place_of(index), false, start, index});
    while (!controller.step(kNever, done)) {
    }
    if (index >= 0) total += done.data_end - start;
  }
  return static_cast<double>(total) / kIdleRequests * spec.clock_ns;
}

}  // namespace

BandwidthResult measure_bandwidth(const DramSpec& spec, const BandwidthCase& one, std::vector<Issued>* log) {
  check(one.bursts >= 1000 && one.bursts <= 100'000'000, "1000 to 10^8 bursts", one.bursts, "200000");
  check(one.read_pct >= 0 && one.read_pct <= 100, "a share of reads of 0 to 100 %", one.read_pct, "100");
  Controller controller(spec, one.ranks, one.options);
  controller.record(log);
  Traffic traffic(spec, one.ranks, one.pattern, one.seed);
  Random kinds(one.seed + 1);
  const int64_t warm_up = one.bursts / 20;
  int64_t done_bursts = 0, start = 0;
  Request next{traffic.next(), !kinds.one_in_percent(one.read_pct), 0, 0};
  Completion done{};
  while (done_bursts < warm_up + one.bursts) {
    while (controller.has_room(next.write)) {
      controller.push(next);
      next = {traffic.next(), !kinds.one_in_percent(one.read_pct), controller.now(), 0};
    }
    if (controller.step(kNever, done) && ++done_bursts == warm_up) start = controller.idle_from();
  }
  const Device& device = controller.device();
  return {gbps_of(spec, one.bursts, controller.idle_from() - start),
          device.issued(Command::kRead),
          device.issued(Command::kWrite),
          device.issued(Command::kActivate),
          device.issued(Command::kPrecharge) + device.issued(Command::kPrechargeAll),
          device.issued(Command::kRefresh)};
}

double idle_hit_ns(const DramSpec& spec) {
  return idle_ns(spec, [&](int index) {
    Place place;
    place.burst = (index + 1) % spec.geometry.bursts_per_row;
    return place;
  });
}

double idle_conflict_ns(const DramSpec& spec) {
  return idle_ns(spec, [&](int index) {
    Place place;
    place.row = (index + 1) % spec.geometry.rows;
    return place;
  });
}

LoadedResult measure_loaded_latency(const DramSpec& spec, double background_gbps, int probes,
                                    const ControllerOptions& options, uint64_t seed) {
  check(background_gbps >= 0 && background_gbps < spec.peak_gbps(), "a background below the peak bandwidth",
        background_gbps, "0 for as much as fits");
  check(probes >= 1 && probes <= 1'000'000, "1 to 10^6 probes", probes, "2000");
  constexpr int64_t kProbe = 1;  // tag
  Controller controller(spec, 1, options);
  Traffic stream(spec, 1, Pattern::kStream, seed), random(spec, 1, Pattern::kRandom, seed + 1);
  Random gaps(seed + 2);
  const double period =
      background_gbps > 0 ? spec.geometry.burst_bytes / (background_gbps * spec.clock_ns) : 0.0;
  const int warm_up = probes / 10 + 1;
  int64_t latency = 0, bursts = 0, start = 0, next_probe = kIdleClocks;
  double next_burst = 0;  // a stream that had to wait goes on from there: it does not catch up
  bool probing = false;
  Completion done{};
  for (int finished = 0; finished < warm_up + probes;) {
    const auto now = static_cast<double>(controller.now());
    if (!probing && next_probe <= controller.now() && controller.has_room(false)) {
      controller.push({random.next(), false, controller.now(), kProbe});
      probing = true;
    }
    while (next_burst <= now && controller.has_room(false)) {
      controller.push({stream.next(), false, controller.now(), 0});
      next_burst = std::max(next_burst, now - 1) + period;
    }
    int64_t limit = controller.has_room(false) ? static_cast<int64_t>(std::ceil(next_burst)) : kNever;
    if (!probing && controller.has_room(false)) limit = std::min(limit, next_probe);
    if (!controller.step(limit, done)) continue;
    ++bursts;
    if (done.request.tag != kProbe) continue;
    probing = false;
    next_probe = controller.now() + 100 + gaps.below(800);
    if (++finished == warm_up) {
      start = done.data_end;
      bursts = 0;
    } else if (finished > warm_up) {
      latency += done.data_end - done.request.arrival;
    }
  }
  return {gbps_of(spec, bursts, controller.idle_from() - start),
          static_cast<double>(latency) / probes * spec.clock_ns};
}

}  // namespace trimoe::ndp
