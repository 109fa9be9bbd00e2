// COPY_RANK: bytes from one place of the DIMM to another, rank to rank, past the core.
//   weight_addr, dst_addr (local), bytes.
#include <cstring>

#include "ndp/commands/command.h"
#include "ndp/timing/closed_form.h"

namespace trimoe::ndp {

Outcome plan_copy_rank(const Call& call) {
  const Descriptor& d = call.descriptor;
  DimmState& dimm = call.dimm;
  const std::byte* from = dimm.memory.read(d.weight_addr, d.bytes);
  std::byte* to = dimm.memory.write(d.dst_addr, d.bytes);
  if (d.bytes == 0) return refused(Status::kBadField);
  if (!from || !to) return refused(Status::kBadAddress);
  if (dimm.memory.is_poisoned(d.weight_addr, d.bytes)) return refused(Status::kEcc);
  const DramSpec& spec = *dimm.config.spec;
  const DramTiming& t = spec.timing;
  // One rank reads while another writes; the writes begin a read and a turn of the bus later.
  const double ns =
      d.bytes / stream_gbps(spec, 1) + (t.nRCD + t.nCL + t.nBL + t.nRTRS + t.nCWL) * spec.clock_ns;
  return {Status::kOk, ns, [&dimm, from, to, bytes = d.bytes](double share) {
            const auto done = static_cast<int64_t>(bytes * share);
            std::memmove(to, from, static_cast<size_t>(done));
            dimm.counters.dram_read_bytes += done;
            dimm.counters.dram_written_bytes += done;
            return share < 1 ? Status::kAborted : Status::kOk;
          }};
}

}  // namespace trimoe::ndp
