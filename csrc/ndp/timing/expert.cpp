#include "ndp/timing/expert.h"

#include <cmath>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <tuple>

#include "common/error.h"
#include "ndp/timing/closed_form.h"
#include "ndp/timing/multiply.h"
#include "packed/layout.h"

namespace trimoe::ndp {
namespace {

constexpr double kSumBytes = 4;  // fp32
constexpr size_t kMaxRemembered = 65'536;

// Of I, the part of the rank that has most.
int64_t slice(const CoreConfig& core, const ExpertCase& one) { return ceil_div(one.inter, core.ranks); }

// Of one matrix, on one sub-channel of one rank of one DIMM.
int64_t matrix_bursts(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  const double bytes = static_cast<double>(one.hidden * slice(core, one)) * one.weight_bytes_each;
  return static_cast<int64_t>(std::ceil(bytes / kSubChannels / one.striped_over / spec.geometry.burst_bytes));
}

}  // namespace

double reduce_ns(const CoreConfig& core, const ExpertCase& one) {
  return static_cast<double>(one.tokens * one.hidden) * core.ranks / core.reduce_gadds;
}

int64_t tokens_in_buffer(const CoreConfig& core, const ExpertCase& one) {
  const auto hidden = static_cast<double>(one.hidden), inter = static_cast<double>(slice(core, one));
  const double bytes = hidden * (kActivationBytes + kSumBytes) + 2 * inter * kSumBytes;
  return static_cast<int64_t>(static_cast<double>(core.buffer_bytes) / bytes);
}

void check_core(const CoreConfig& core) {
  check(core.ranks >= 1 && core.ranks <= kMaxRanks, "1 to 8 ranks", core.ranks, "4");
  check(core.tflops > 0, "a core of more than 0 TFLOP/s", core.tflops, "0.5");
  check(core.link_gbps > 0, "a link of more than 0 GB/s", core.link_gbps, "25");
}

void check_case(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  check(one.hidden >= 1 && one.inter >= 1 && one.tokens >= 1,
        "a hidden and intermediate size and tokens of 1 or more",
        std::min({one.hidden, one.inter, one.tokens}));
  check(std::max({one.hidden, one.inter, one.tokens}) <= int64_t{1} << 30, "sizes of at most 2^30",
        std::max({one.hidden, one.inter, one.tokens}));
  check_core(core);
  check(tokens_in_buffer(core, one) >= 1, "a buffer that holds one token", core.buffer_bytes,
        "a larger buffer, or more ranks");
  check(one.weight_bytes_each > 0 && one.weight_bytes_each <= 4096,
        "weights of up to 4096 bytes, padding included", one.weight_bytes_each, "2");
  check(one.striped_over >= 1, "one DIMM or more", one.striped_over, "16");
  check(one.stream_share > 0 && one.stream_share <= 1, "a share of the stream between 0 and 1",
        one.stream_share, "1");
  const DramGeometry& geometry = spec.geometry;
  const int64_t bursts = 3 * matrix_bursts(spec, core, one);
  check(bursts <= int64_t{geometry.banks()} * geometry.rows * geometry.bursts_per_row,
        "an expert that fits the DIMM", bursts * geometry.burst_bytes * kSubChannels * core.ranks,
        "a smaller one, or more ranks");
}

ExpertTime simulate_expert(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  check_case(spec, core, one);
  const int64_t passes = ceil_div(one.tokens, tokens_in_buffer(core, one));
  const int64_t bursts = matrix_bursts(spec, core, one);
  // The core's rate is shared evenly by what streams into it. With every burst of its own, a DIMM multiplies
  // the bursts that come over the link meanwhile.
  const double macs_per_ns = core.tflops * 1e3 / 2 / (core.ranks * kSubChannels);
  const double macs_per_burst = spec.geometry.burst_bytes / one.weight_bytes_each * one.striped_over;
  const double channel_bytes = static_cast<double>(one.tokens * one.hidden) * kActivationBytes;

  ExpertTime time{};
  PassReader stream(spec, bursts);
  Pace pace{spec.clock_ns / one.stream_share, spec.timing.nBL, 0};
  double done_ns = 0;
  const auto phase = [&](const std::vector<Run>& runs) {
    const double start = done_ns;
    for (const Run& run : runs) done_ns = multiply_run(done_ns, run, pace);
    return done_ns - start;
  };
  int64_t reads = 0, activates = 0, refreshes = 0;
  for (int64_t pass = 0; pass < passes; ++pass) {
    // Evenly: a last pass of few tokens would leave the core idle.
    const int64_t tokens = one.tokens * (pass + 1) / passes - one.tokens * pass / passes;
    pace.multiply_ns = static_cast<double>(tokens) * macs_per_burst / macs_per_ns;
    const auto weights = stream.next();
    time.gate_up_ns += phase(weights->gate_up);
    time.down_ns += phase(weights->down);
    reads += weights->reads;
    activates += weights->activates;
    refreshes += weights->refreshes;
  }
  time.command_ns = command_ns(spec);
  time.broadcast_ns = channel_ns(spec, channel_bytes);
  time.result_ns = channel_ns(spec, channel_bytes);
  time.reduce_ns = reduce_ns(core, one);
  time.passes = passes;
  time.weight_bytes = 3 * bursts * spec.geometry.burst_bytes * kSubChannels * core.ranks;
  time.link_bytes = time.weight_bytes * (one.striped_over - 1);
  if (one.striped_over > 1) {
    const double link_ns = static_cast<double>(passes * time.link_bytes) / core.link_gbps;
    const double late_ns = std::max(0.0, link_ns - (time.gate_up_ns + time.down_ns));
    time.gather_ns = first_link_ns(spec, core.link_gbps) + late_ns;
  }
  time.channel_nj = 2 * channel_bytes * 8 * kChannelPjPerBit * 1e-3;
  time.link_nj = static_cast<double>(passes * time.link_bytes) * 8 * kLinkPjPerBit * 1e-3;
  const DramEnergy& energy = spec.energy;
  time.dram_nj =
      core.ranks * kSubChannels * one.striped_over *
      (static_cast<double>(reads) * energy.read_nj + static_cast<double>(activates) * energy.activate_nj +
       static_cast<double>(refreshes) * energy.refresh_nj);
  return time;
}

ExpertTime expert_time(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  using Key = std::tuple<const DramSpec*, CoreConfig, ExpertCase>;
  static std::shared_mutex mutex;
  static std::map<Key, ExpertTime> times;
  check_case(spec, core, one);  // also keeps what cannot be ordered out of the keys
  const Key key(&spec, core, one);
  {
    const std::shared_lock lock(mutex);
    if (const auto found = times.find(key); found != times.end()) return found->second;
  }
  const ExpertTime time = simulate_expert(spec, core, one);
  if (!is_listed(spec)) return time;
  const std::lock_guard lock(mutex);
  if (times.size() >= kMaxRemembered) times.clear();
  times.emplace(key, time);
  return time;
}

}  // namespace trimoe::ndp
