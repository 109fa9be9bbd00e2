// STATUS: the DIMM's own account of itself, 64 bytes. Answered at once, whatever waits in the ring.
//   payload out: StatusReport.
#include <cstring>

#include "ndp/commands/command.h"

namespace trimoe::ndp {

Outcome plan_status(const Call& call) {
  DimmState& dimm = call.dimm;
  if (call.payload.out.size() != sizeof(StatusReport)) return refused(Status::kBadField);
  const DramSpec& spec = *dimm.config.spec;
  const double row_hit_ns = (spec.timing.nCL + spec.timing.nBL + 2) * spec.clock_ns;
  return {Status::kOk, row_hit_ns, [&dimm, to = call.payload.out](double) {
            StatusReport report;
            for (size_t rank = 0; rank < dimm.ranks.size(); ++rank) {
              report.modes |= static_cast<uint32_t>(dimm.ranks[rank].mode) << 2 * rank;
              report.refreshes += static_cast<uint64_t>(dimm.ranks[rank].refresh.issued(Owner::kNdp));
            }
            for (const int64_t count : dimm.counters.completed)
              report.completed += static_cast<uint64_t>(count);
            report.failed = static_cast<uint64_t>(dimm.counters.failed);
            report.busy_ns = dimm.counters.busy_ns;
            report.experts = static_cast<uint32_t>(dimm.slots.size());
            std::memcpy(to.data(), &report, sizeof report);
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
