// IRQ: bytes 0 lets interrupts through, 1 masks them, 2 acknowledges the one that is pending.
#include "ndp/commands/command.h"

namespace trimoe::ndp {

Outcome plan_irq(const Call& call) {
  const uint32_t what = call.descriptor.bytes;
  if (what > 2) return refused(Status::kBadField);
  return {Status::kOk, 0, [&dimm = call.dimm, what](double) {
            if (what == 2)
              dimm.irq_pending = false;
            else
              dimm.irq_masked = what == 1;
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
