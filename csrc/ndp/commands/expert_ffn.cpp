// EXPERT_FFN: GEMM_GU, SILU_MUL, GEMM_DN and REDUCE in one, all ranks. Of a striped expert it gathers over
// the link, while it streams its own piece, what other DIMMs have.
//   slot, tokens; buf_in: bf16 [tokens, H]; buf_out: fp32 [tokens, H]. What lies behind both is overwritten.
#include "ndp/commands/compute.h"
#include "packed/layout.h"

namespace trimoe::ndp {

Outcome plan_expert_ffn(const Call& call) {
  const Work work = work_of(call);
  if (work.status != Status::kOk) return refused(work.status);
  DimmState& dimm = call.dimm;
  const Descriptor& d = call.descriptor;
  const int64_t ends = std::max(d.buf_in + work.input_bytes(), d.buf_out + work.result_bytes());
  const auto scratch = static_cast<uint32_t>(round_up(ends, kBufferAlign));

  // Partial sums must not overwrite a result that is added to.
  int64_t h_bytes = 0;
  for (const int rank : work.ranks) h_bytes = std::max(h_bytes, work.h_bytes(work.slice(rank, dimm)));
  const auto partial =
      d.has(kAccumulate) ? static_cast<uint32_t>(round_up(scratch + h_bytes, kBufferAlign)) : d.buf_out;

  struct Step {
    Outcome (*plan)(const Call&);
    uint32_t buf_in, buf_out;
  };
  const Step steps[] = {{plan_gemm_gu, d.buf_in, scratch},
                        {plan_silu_mul, scratch, scratch},
                        {plan_gemm_dn, scratch, partial},
                        {plan_reduce, partial, d.buf_out}};
  std::vector<std::function<Status(double)>> effects;
  for (const Step& step : steps) {
    Descriptor part = d;
    part.buf_in = step.buf_in;
    part.buf_out = step.buf_out;
    Outcome outcome = step.plan({dimm, part, {}, call.start_ns});
    if (outcome.status != Status::kOk) return refused(outcome.status);
    effects.push_back(std::move(outcome.effect));
  }
  const WorkTime time = time_of(dimm, work);  // the activation goes on beside the stream
  const Gather gather = gather_of(call, work);
  const double ns = gather.wait_ns + time.gate_up_ns + time.down_ns + time.reduce_ns;
  return {Status::kOk, ns,
          [&dimm, work, effects, until_ns = call.start_ns + ns](double share) {
            for (const auto& effect : effects)
              if (const Status status = effect(share); status != Status::kOk) return status;
            return gathered(dimm, work, until_ns);
          },
          gather.links};
}

}  // namespace trimoe::ndp
