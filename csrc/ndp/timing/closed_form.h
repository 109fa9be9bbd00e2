// What the emulator should find, by formula; and the constants that it shares with the simulation.
#pragma once

#include "ndp/sharing/command_path.h"
#include "ndp/sharing/mode.h"
#include "ndp/timing/expert.h"

namespace trimoe::ndp {

inline constexpr double kActivationBytes = 2;     // bf16
inline constexpr double kChannelPjPerBit = 22.0;  // off the DIMM; as recalled from RecNMP
inline constexpr double kLinkPjPerBit = 1.17;     // DIMM to DIMM; from Hermes

// Of so many ranks, each on its own two sub-channels, with what refresh leaves.
double stream_gbps(const DramSpec& spec, int ranks);

// A descriptor's way over the channel and to the core.
double command_ns(const DramSpec& spec);

// Bytes over the channel, both sub-channels, whole bursts.
double channel_ns(const DramSpec& spec, double bytes);

// From asking another DIMM for weights until the first of them, one row of a sub-channel, are here.
double first_link_ns(const DramSpec& spec, double link_gbps);

// t_cmd + broadcast + max(passes * W / B, MACs / F) + reduce + results; of an expert that is striped over D
// DIMMs the middle is t_first + max(passes * W / D / B, MACs / F, passes * (D - 1) / D * W / link). B:
// stream_gbps times the share that the host leaves.
double expert_closed_form_ns(const DramSpec& spec, const CoreConfig& core, const ExpertCase& one);

// Of the stream of the rank that a host reads at so many GB/s, u of the rank's bandwidth, what the core
// keeps:
//   exclusive:  max(1 - u, 1/2) / (1 + (nRP + nRCD + t_cmd) / nREFI): turns of at most one nREFI each
//   concurrent: (1 - u) * (1 - 0.03): rows that are opened again
// 1 without a host. Throws Error for mode host, in which the core may not run, and a host beyond the
// bandwidth.
double stream_share(const DramSpec& spec, Mode mode, double host_gbps);

// Tokens from which the core is slower than the stream: F / B for two bytes a weight.
double ridge_tokens(const DramSpec& spec, const CoreConfig& core, double weight_bytes_each);

}  // namespace trimoe::ndp
