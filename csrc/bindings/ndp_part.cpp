#include "bindings/ndp_part.h"

#include <algorithm>
#include <string>

#include "common/convert.h"
#include "common/domain_code.h"
#include "common/error.h"
#include "ndp/system/domain.h"

namespace trimoe {
namespace {

static_assert(ndp::kHandleCounts == int64_t{1} << cpu::kHandleCountBits);

Bf16 element(const RowSource& source, int64_t row, int64_t column) {
  const int64_t at = row * source.row_stride + column * source.col_stride;
  switch (source.dtype) {
    case DType::kF32:
      return from_f32<Bf16>(static_cast<const float*>(source.data)[at]);
    case DType::kBf16:
      return static_cast<const Bf16*>(source.data)[at];
    case DType::kF16:
      return from_f32<Bf16>(to_f32(static_cast<const F16*>(source.data)[at]));
  }
  return {};
}

// The rows of one expert, together, and room for its results.
struct Rows {
  std::vector<Bf16> x;
  std::vector<float> out;
};

Rows gather(const RowSource& hidden, std::span<const int32_t> tokens) {
  Rows rows;
  rows.x.reserve(tokens.size() * static_cast<size_t>(hidden.cols));
  for (const int32_t token : tokens)
    for (int64_t column = 0; column < hidden.cols; ++column) rows.x.push_back(element(hidden, token, column));
  rows.out.resize(rows.x.size());
  return rows;
}

// The router's ids, -1 for those that are no expert.
std::vector<int32_t> ids_of(const cpu::RouterOutput& router, int64_t tokens, int64_t experts) {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(tokens * router.topk));
  for (int64_t token = 0; token < tokens; ++token)
    for (int64_t slot = 0; slot < router.topk; ++slot) {
      const int64_t id = cpu::id_at(router, token, slot);
      ids.push_back(id >= 0 && id < experts ? static_cast<int32_t>(id) : -1);
    }
  return ids;
}

// The experts that DIMMs are to run, and the same as jobs, without rows yet.
struct Work {
  std::vector<cpu::Routing::Expert> experts;
  std::vector<ndp::ExpertJob> jobs;
};

Work work_of(const ndp::Fleet& fleet, int64_t handle, std::span<const int32_t> domains,
             const cpu::Routing& routing) {
  Work work;
  for (const auto& expert : routing.active) {
    const int domain = domains[static_cast<size_t>(expert.index)];
    if (domain < kFirstDimmDomain) continue;
    const int64_t key = ndp::expert_key(handle, expert.index);
    check(
        fleet.where(key).dimm == domain - kFirstDimmDomain,
        "a plan that has each expert on the DIMM where it lies",
        [&] { return "expert " + std::to_string(expert.index) + " in domain " + std::to_string(domain); },
        "2 + Fleet.where(expert).dimm, or migrate()");
    work.experts.push_back(expert);
    work.jobs.push_back({key, nullptr, expert.end - expert.begin, nullptr});
  }
  return work;
}

}  // namespace

NdpPart::NdpPart(int64_t handle, const cpu::Layer& layer, std::span<const int32_t> domains,
                 const ThreadPool& pool, cpu::FfnArgs& args) {
  if (domains.empty()) return;
  const auto [fleet, arithmetic] = ndp::domain_of(handle);
  check(fleet != nullptr, "a plan that uses domains this layer has: 0 (CPU)",
        *std::max_element(domains.begin(), domains.end()), "trimoe.runtime.ndp.NdpDomain, or plan=None");
  // DIMMs and cores must see the same ids, even if another thread writes to the router's.
  ids_ = ids_of(args.router, args.tokens, std::ssize(domains));
  args.router.ids = ids_.data();
  args.router.ids_are_int64 = false;
  args.router.ids_row_stride = args.router.topk;
  args.router.ids_col_stride = 1;
  cpu::Routing routing;
  routing.assign(args.router, 0, args.tokens, std::ssize(domains));
  auto [experts, jobs] = work_of(*fleet, handle, domains, routing);
  if (arithmetic == ndp::Arithmetic::kHost) {
    fleet->run(jobs, pool);
    for (int64_t expert = 0; expert < layer.shape().experts; ++expert)
      experts_.push_back(layer.expert(expert));
    for (size_t i = 0; i < jobs.size(); ++i) {
      const std::byte* bytes = fleet->bytes_at(jobs[i].expert);
      check(reinterpret_cast<uintptr_t>(bytes) % kLineBytes == 0, "packed experts aligned to 64 bytes",
            "an unaligned address", "placing ExpertLayer.memory, or arithmetic \"core\"");
      experts_[static_cast<size_t>(experts[i].index)] = bytes;
    }
    args.experts = experts_.data();
    return;
  }

  const int64_t hidden = args.hidden.cols;
  std::vector<Rows> rows;
  for (const auto& expert : experts) {
    const auto first = static_cast<size_t>(expert.begin),
               count = static_cast<size_t>(expert.end - expert.begin);
    rows.push_back(gather(args.hidden, std::span(routing.tokens).subspan(first, count)));
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].x = rows[i].x.data();
    jobs[i].out = rows[i].out.data();
  }
  fleet->run(jobs, pool);
  sums_.resize(static_cast<size_t>(args.tokens * hidden));
  for (size_t i = 0; i < jobs.size(); ++i) {  // in order of the experts, as the host adds them
    const float* from = jobs[i].out;
    for (int32_t row = experts[i].begin; row < experts[i].end; ++row, from += hidden) {
      float* to = sums_.data() + routing.tokens[static_cast<size_t>(row)] * hidden;
      for (int64_t column = 0; column < hidden; ++column)
        to[column] += routing.weights[static_cast<size_t>(row)] * from[column];
    }
  }
  for (int32_t& id : ids_)
    if (id >= 0 && domains[static_cast<size_t>(id)] >= kFirstDimmDomain) id = -1;
  args.initial = sums_.data();
}

}  // namespace trimoe
