// MODE_SET: who may use the ranks of the mask. Closes all rows; hands over who refreshes, debt included.
//   bytes: the Mode.
#include "ndp/commands/command.h"

namespace trimoe::ndp {

Outcome plan_mode_set(const Call& call) {
  // The other commands that take ranks find out in dimm.cpp; this one waits for all of them.
  if (call.descriptor.bytes >= kModeNames.size() || call.ranks().empty()) return refused(Status::kBadField);
  const auto mode = static_cast<Mode>(call.descriptor.bytes);
  const DramSpec& spec = *call.dimm.config.spec;
  const double ns = spec.timing.nRP * spec.clock_ns;
  DimmState& dimm = call.dimm;
  const auto clock = static_cast<int64_t>((call.start_ns + ns) / spec.clock_ns);
  return {Status::kOk, ns, [&dimm, mode, clock, ranks = call.ranks()](double share) {
            if (share < 1) return Status::kOk;
            for (const int index : ranks) {
              Rank& rank = dimm.ranks[static_cast<size_t>(index)];
              catch_up(rank.refresh, clock);
              rank.refresh.transfer(owner_in(mode), clock);
              rank.mode = mode;
            }
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
