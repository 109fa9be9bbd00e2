// LINK_RECV: lets another DIMM write to a window, once.
//   weight_addr, bytes.
#include "ndp/commands/command.h"

namespace trimoe::ndp {

Outcome plan_link_recv(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  if (d.bytes == 0) return refused(Status::kBadField);
  if (!dimm.memory.write(d.weight_addr, d.bytes)) return refused(Status::kBadAddress);
  return {Status::kOk, 0, [&dimm, window = Window{d.weight_addr, d.bytes}](double) {
            dimm.windows.push_back(window);
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
