// RES_READ: results [tokens, H] from the buffer of the first rank of the mask, as bf16 or, wide, as fp32.
//   bytes, buf_in; payload out.
#include <cstring>

#include "common/convert.h"
#include "ndp/commands/command.h"
#include "ndp/dimm/rates.h"

namespace trimoe::ndp {

Outcome plan_res_read(const Call& call) {
  const Descriptor& d = call.descriptor;
  const bool wide = d.has(kWideResult);
  const int64_t values = d.bytes / (wide ? 4 : 2);
  const auto ranks = call.ranks();
  if (values == 0 || d.bytes % (wide ? 4 : 2) != 0 || call.payload.out.size() != d.bytes || ranks.empty())
    return refused(Status::kBadField);
  const std::byte* from = call.buffer(ranks[0], d.buf_in, values * 4);
  if (!from) return refused(Status::kBufOverflow);
  DimmState& dimm = call.dimm;
  const double ns = channel_ns(*dimm.config.spec, d.bytes);
  return {Status::kOk, ns, [&dimm, from, wide, values, to = call.payload.out](double share) {
            if (share < 1) return Status::kAborted;  // the host keeps what it had
            for (int64_t i = 0; i < values; ++i) {
              float value;
              std::memcpy(&value, from + i * 4, 4);
              const Bf16 narrow = from_f32<Bf16>(value);
              std::memcpy(to.data() + i * (wide ? 4 : 2), wide ? static_cast<const void*>(&value) : &narrow,
                          wide ? 4 : 2);
            }
            dimm.counters.channel_bytes += static_cast<int64_t>(to.size());
            return Status::kOk;
          }};
}

}  // namespace trimoe::ndp
