#include "ndp/timing/closed_form.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

constexpr double kRowSwitchLoss = 0.03;

}  // namespace

double stream_gbps(const DramSpec& spec, int ranks) {
  const DramTiming& t = spec.timing;
  const double share = 1.0 - static_cast<double>(t.nRTP + t.nRP + t.nRFC1 + t.nRCD) / t.nREFI;
  return spec.peak_gbps() * share * kSubChannels * ranks;
}

double command_ns(const DramSpec& spec) {
  return static_cast<double>(command_clocks(spec.timing)) * spec.clock_ns;
}

double channel_ns(const DramSpec& spec, double bytes) {
  const double bursts = std::ceil(bytes / kSubChannels / spec.geometry.burst_bytes);
  return bursts * spec.timing.nBL * spec.clock_ns;
}

double first_link_ns(const DramSpec& spec, double link_gbps) {
  const DramTiming& t = spec.timing;
  const double row_ns = static_cast<double>(spec.geometry.row_bytes()) / link_gbps;
  return command_ns(spec) + (t.nRCD + t.nCL + t.nBL) * spec.clock_ns + row_ns;
}

double expert_closed_form_ns(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one) {
  check_case(spec, core, one);
  const auto tokens = static_cast<double>(one.tokens);
  const double macs = 3.0 * static_cast<double>(one.hidden * one.inter);
  const double passes = std::ceil(tokens / static_cast<double>(tokens_in_buffer(core, one)));
  const double traffic = passes * macs * one.weight_bytes_each, own = traffic / one.striped_over;
  const double stream_ns = own / (stream_gbps(spec, core.ranks) * one.stream_share);
  const double mac_ns = tokens * macs / (core.tflops * 1e3 / 2);
  const double link_ns = (traffic - own) / core.link_gbps;
  const double first_ns = one.striped_over > 1 ? first_link_ns(spec, core.link_gbps) : 0;
  const double channel_gbps = spec.peak_gbps() * kSubChannels;
  const double crossing_ns = tokens * static_cast<double>(one.hidden) * kActivationBytes / channel_gbps;
  return command_ns(spec) + 2 * crossing_ns + first_ns + std::max({stream_ns, mac_ns, link_ns}) +
         reduce_ns(core, one);
}

double stream_share(const DramSpec& spec, Mode mode, double host_gbps) {
  check(mode != Mode::kHost, "a mode in which the core may run", "host", "exclusive or concurrent");
  const double left = 1 - host_gbps / stream_gbps(spec, 1);
  check(host_gbps >= 0 && left > 0, "a host of less than the bandwidth of a rank, in GB/s", host_gbps, "10");
  if (host_gbps == 0) return 1;
  if (mode == Mode::kConcurrent) return left * (1 - kRowSwitchLoss);
  const double switch_ns = (spec.timing.nRP + spec.timing.nRCD) * spec.clock_ns + command_ns(spec);
  return std::max(left, 0.5) / (1 + switch_ns / (spec.timing.nREFI * spec.clock_ns));
}

double ridge_tokens(const DramSpec& spec, const CoreConfig& core, double weight_bytes_each) {
  check_core(core);
  return core.tflops * 1e3 / 2 * weight_bytes_each / stream_gbps(spec, core.ranks);
}

}  // namespace trimoe::ndp
