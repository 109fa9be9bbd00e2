#include "ndp/expert.h"

#include <cmath>
#include <limits>

#include "common/error.h"
#include "common/layout.h"
#include "ndp/dram/traffic.h"

namespace trimoe::ndp {
namespace {

// Clocks that a descriptor takes behind the channel: registering driver, data buffers, decoding.
constexpr int kCommandPathClocks = 2 + 8 + 7;
constexpr double kActivationBytes = 2;     // bf16
constexpr double kSumBytes = 4;            // fp32
constexpr double kChannelPjPerBit = 22.0;  // off the DIMM; as recalled from RecNMP

// Bandwidth that refresh leaves of a stream, as a share of the peak.
double stream_share(const DramSpec& spec) {
  const DramTiming& t = spec.timing;
  return 1.0 - static_cast<double>(t.nRTP + t.nRP + t.nRFC1 + t.nRCD) / t.nREFI;
}

// Of I, the part of the rank that has most.
int64_t slice(const CoreConfig& core, const ExpertCase& one) { return ceil_div(one.inter, core.ranks); }

double channel_ns(const DramSpec& spec, double bytes) {
  const double bursts = std::ceil(bytes / kSubChannels / spec.geometry.burst_bytes);
  return bursts * spec.timing.nBL * spec.clock_ns;
}

double command_ns(const DramSpec& spec) {
  return (spec.timing.nCWL + spec.timing.nBL + kCommandPathClocks) * spec.clock_ns;
}

double reduce_ns(const CoreConfig& core, const ExpertCase& one) {
  return static_cast<double>(one.tokens * one.hidden * core.ranks) / core.reduce_gadds;
}

// The weights of one phase past the core, burst by burst: a burst is multiplied when it is there and the one
// before it is done.
class Stream {
 public:
  explicit Stream(const DramSpec& spec)
      : spec_(spec), controller_(spec, 1, {}), traffic_(spec, 1, Pattern::kStream, 1) {}

  // Nanoseconds from the end of what came before. mac_ns: of one burst, for all tokens of the pass.
  double run(int64_t bursts, double mac_ns) {
    const double start = done_ns_;
    Completion done{};
    for (int64_t sent = 0, finished = 0; finished < bursts;) {
      for (; sent < bursts && controller_.has_room(false); ++sent)
        controller_.push({traffic_.next(), false, controller_.now(), 0});
      if (!controller_.step(std::numeric_limits<int64_t>::max(), done)) continue;
      ++finished;
      done_ns_ = std::max(done_ns_, static_cast<double>(done.data_end) * spec_.clock_ns) + mac_ns;
    }
    return done_ns_ - start;
  }

  const Device& device() const { return controller_.device(); }

 private:
  DramSpec spec_;
  Controller controller_;
  Traffic traffic_;
  double done_ns_ = 0;
};

void check_case(const CoreConfig& core, const ExpertCase& one) {
  check(one.hidden >= 1 && one.inter >= 1 && one.tokens >= 1, "a hidden and intermediate size and tokens",
        std::min({one.hidden, one.inter, one.tokens}), "positive numbers");
  check(core.ranks >= 1 && core.ranks <= kMaxRanks, "1 to 8 ranks", core.ranks, "4");
  check(core.tflops > 0, "a core of more than 0 TFLOP/s", core.tflops, "0.5");
  check(tokens_in_buffer(core, one) >= 1, "a buffer that holds one token", core.buffer_bytes,
        "a larger buffer, or more ranks");
}

}  // namespace

int64_t tokens_in_buffer(const CoreConfig& core, const ExpertCase& one) {
  const auto hidden = static_cast<double>(one.hidden), inter = static_cast<double>(slice(core, one));
  const double bytes = hidden * (kActivationBytes + kSumBytes) + 2 * inter * kSumBytes;
  return static_cast<int64_t>(static_cast<double>(core.buffer_bytes) / bytes);
}

ExpertTime simulate_expert(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  check_case(core, one);
  const int64_t passes = ceil_div(one.tokens, tokens_in_buffer(core, one));
  const double matrix_bytes = static_cast<double>(one.hidden * slice(core, one)) * one.weight_bytes_each;
  const auto bursts =
      static_cast<int64_t>(std::ceil(matrix_bytes / kSubChannels / spec.geometry.burst_bytes));
  // The core's rate is shared evenly by what streams into it.
  const double macs_per_ns = core.tflops * 1e3 / 2 / (core.ranks * kSubChannels);
  const double macs_per_burst = spec.geometry.burst_bytes / one.weight_bytes_each;
  const double channel_bytes = static_cast<double>(one.tokens * one.hidden) * kActivationBytes;

  ExpertTime time{};
  Stream stream(spec);
  for (int64_t pass = 0; pass < passes; ++pass) {
    // Evenly: a last pass of few tokens would leave the core idle.
    const int64_t tokens = one.tokens * (pass + 1) / passes - one.tokens * pass / passes;
    const double mac_ns = static_cast<double>(tokens) * macs_per_burst / macs_per_ns;
    time.gate_up_ns += stream.run(2 * bursts, mac_ns);
    time.down_ns += stream.run(bursts, mac_ns);
  }
  time.command_ns = command_ns(spec);
  time.broadcast_ns = channel_ns(spec, channel_bytes);
  time.result_ns = channel_ns(spec, channel_bytes);
  time.reduce_ns = reduce_ns(core, one);
  time.passes = passes;
  time.weight_bytes = 3 * bursts * spec.geometry.burst_bytes * kSubChannels * core.ranks;
  time.channel_nj = 2 * channel_bytes * 8 * kChannelPjPerBit * 1e-3;
  const auto issued = [&](Command command) { return static_cast<double>(stream.device().issued(command)); };
  const DramEnergy& energy = spec.energy;
  time.dram_nj = core.ranks * kSubChannels *
                 (issued(Command::kRead) * energy.read_nj + issued(Command::kActivate) * energy.activate_nj +
                  issued(Command::kRefresh) * energy.refresh_nj);
  return time;
}

double expert_closed_form_ns(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  check_case(core, one);
  const auto tokens = static_cast<double>(one.tokens);
  const double macs = 3.0 * static_cast<double>(one.hidden * one.inter);
  const double gbps = spec.peak_gbps() * stream_share(spec) * kSubChannels * core.ranks;
  const double passes = std::ceil(tokens / static_cast<double>(tokens_in_buffer(core, one)));
  const double stream_ns = passes * macs * one.weight_bytes_each / gbps;
  const double mac_ns = tokens * macs / (core.tflops * 1e3 / 2);
  const double channel_gbps = spec.peak_gbps() * kSubChannels;
  const double channel_ns = tokens * static_cast<double>(one.hidden) * kActivationBytes / channel_gbps;
  return command_ns(spec) + 2 * channel_ns + std::max(stream_ns, mac_ns) + reduce_ns(core, one);
}

}  // namespace trimoe::ndp
