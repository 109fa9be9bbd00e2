#include "runtime/fleet_domain.h"

#include <algorithm>
#include <future>
#include <string>
#include <utility>

#include "common/convert.h"
#include "common/domain_code.h"
#include "common/error.h"
#include "common/own_threads.h"
#include "ndp/system/expert_key.h"
#include "packed/layout.h"
#include "runtime/layer.h"

namespace trimoe::runtime {
namespace {

static_assert(ndp::kHandleCounts == int64_t{1} << kHandleCountBits);

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

void check_place(const Share& share, const ndp::Packed& found) {
  const bool is_split = share.code == kSplitDomain;
  const bool fits = found.layout == ndp::Layout::kSplit       ? is_split
                    : found.layout == ndp::Layout::kLocalized ? share.code == kFirstDimmDomain + found.dimm
                                                              : !is_split;
  check(
      fits, "a plan that has each expert on the DIMM where it lies",
      [&] {
        const std::string lies = found.layout == ndp::Layout::kLocalized
                                     ? ", which lies on DIMM " + std::to_string(found.dimm)
                                     : ", a " + std::string(name_of(found.layout)) + " one";
        return "expert " + std::to_string(share.index) + " in domain " + std::to_string(share.code) + lies;
      },
      "2 + Fleet.where(expert).dimm, -2 for a split one, or relayout()");
}

class Step final : public Ticket {
 public:
  Step(std::shared_ptr<ndp::Fleet> fleet, Arithmetic arithmetic, const Batch& batch)
      : fleet_(std::move(fleet)), arithmetic_(arithmetic), batch_(batch) {}
  ~Step() override {
    start();
    if (done_.valid()) done_.wait();
  }

  void begin(int64_t layer) {
    std::vector<int64_t> keys;
    keys.reserve(batch_.experts.size());
    jobs_.reserve(batch_.experts.size());
    for (const Share& share : batch_.experts) keys.push_back(ndp::expert_key(layer, share.index));
    packed_ = fleet_->packed(keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      const Share& share = batch_.experts[i];
      check_place(share, packed_[i]);
      const int dimm = share.code == kSplitDomain ? -1 : share.code - kFirstDimmDomain;
      jobs_.push_back({keys[i], nullptr, share.end - share.begin, nullptr, dimm});
      check(computes() || reinterpret_cast<uintptr_t>(packed_[i].bytes.get()) % kLineBytes == 0,
            "packed experts aligned to 64 bytes", "an unaligned address",
            "placing ExpertLayer.memory, or arithmetic \"core\"");
    }
    done_ = fleet_->worker().submit([this] { run(); });
    is_asleep_ = true;
  }

  void start() override {
    if (std::exchange(is_asleep_, false)) fleet_->worker().wake();
  }

  void wait() override {
    start();
    if (done_.valid()) done_.get();
  }

  void lend(std::vector<cpu::HostExpert>& to) const override {
    if (computes()) return;
    for (size_t i = 0; i < packed_.size(); ++i) to.push_back({batch_.experts[i], packed_[i].bytes.get()});
  }

  bool computes() const override { return arithmetic_ == Arithmetic::kCore; }

  // In order of the experts, as the host adds them.
  void add_into(float* sums) const override {
    const int64_t hidden = batch_.hidden.cols;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const Share& share = batch_.experts[i];
      const float* from = rows_[i].out.data();
      for (auto row = static_cast<size_t>(share.begin); row < static_cast<size_t>(share.end);
           ++row, from += hidden) {
        float* to = sums + batch_.routing.tokens[row] * hidden;
        for (int64_t column = 0; column < hidden; ++column)
          to[column] += batch_.routing.weights[row] * from[column];
      }
    }
  }

  // Of a DIMM, all that it did in the step; what is split takes the whole step.
  Time time_of(int32_t code) const override {
    const auto found =
        std::ranges::find(time_.by_dimm, code - kFirstDimmDomain, [](const auto& one) { return one.first; });
    const double ns = found == time_.by_dimm.end() ? time_.ns : found->second;
    int64_t rows = 0, all = 0;
    for (const Share& share : batch_.experts) {
      all += share.end - share.begin;
      rows += share.code == code ? share.end - share.begin : 0;
    }
    return {Kind::kEmulated, ns, all > 0 ? time_.host_ns * rows / all : 0};
  }

 private:
  void run() {
    if (computes()) {
      for (size_t i = 0; i < jobs_.size(); ++i) {
        const Share& share = batch_.experts[i];
        const auto first = static_cast<size_t>(share.begin),
                   count = static_cast<size_t>(share.end - share.begin);
        rows_.push_back(gather(batch_.hidden, std::span(batch_.routing.tokens).subspan(first, count)));
        jobs_[i].x = rows_[i].x.data();
        jobs_[i].out = rows_[i].out.data();
      }
    }
    // To tell the time alone is no work to share.
    time_ = fleet_->run(jobs_, OwnThreads(computes() ? batch_.workers : 1));
  }

  const std::shared_ptr<ndp::Fleet> fleet_;
  const Arithmetic arithmetic_;
  const Batch batch_;
  std::vector<ndp::ExpertJob> jobs_;
  std::vector<ndp::Packed> packed_;
  std::vector<Rows> rows_;  // of experts that cores compute
  ndp::StepTook time_;
  std::future<void> done_;
  bool is_asleep_ = false;  // nobody has woken the fleet's thread for it yet
};

}  // namespace

FleetDomain::~FleetDomain() {
  fleet_->remove_all(ndp::expert_key(layer_, 0), ndp::expert_key(layer_, ndp::kLayerKeys));
}

std::vector<int32_t> FleetDomain::codes() const {
  std::vector<int32_t> all{kSplitDomain};
  for (int dimm = 0; dimm < fleet_->size(); ++dimm) all.push_back(kFirstDimmDomain + dimm);
  return all;
}

std::unique_ptr<Ticket> FleetDomain::submit(const Batch& batch) {
  auto step = std::make_unique<Step>(fleet_, arithmetic_, batch);
  step->begin(layer_);
  return step;
}

}  // namespace trimoe::runtime
