#include "runtime/forward.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/divide.h"

namespace trimoe::runtime {
namespace {

constexpr size_t kKeptRows = size_t{1} << 20;  // buffers for more are given back after the call

int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Buffers of one call.
struct Buffers {
  cpu::Routing routing;
  Division division;
  std::vector<int64_t> counts;
  std::vector<int32_t> plan;
  std::vector<float> sums;
};

// A thread keeps its buffers from call to call. A policy may call the op: that call has others.
class Lease {
 public:
  Lease() : buffers_(kept() ? std::move(kept()) : std::make_unique<Buffers>()) {}
  ~Lease() {
    if (std::max(buffers_->routing.tokens.size(), buffers_->sums.size()) <= kKeptRows)
      kept() = std::move(buffers_);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Buffers& operator*() { return *buffers_; }

 private:
  static std::unique_ptr<Buffers>& kept() {
    thread_local std::unique_ptr<Buffers> instance;
    return instance;
  }
  std::unique_ptr<Buffers> buffers_;
};

struct Begun {
  std::span<const Share> experts;
  std::unique_ptr<Ticket> ticket;
};

void start(const std::vector<Begun>& all) {
  for (const Begun& one : all) one.ticket->start();
}

// The caller's pool. The last worker of the first region starts the domains: to wake their threads takes
// long, and meanwhile the others compute.
class StartingPool final : public ThreadPool {
 public:
  StartingPool(const ThreadPool& pool, const std::vector<Begun>& begun) : pool_(pool), begun_(begun) {}

  int max_workers() const override { return pool_.max_workers(); }

  void run(int workers, void (*body)(void*, int), void* context) const override {
    if (std::exchange(is_first_, false))
      run_first(workers, body, context);
    else
      pool_.run(workers, body, context);
  }

 private:
  void run_first(int workers, void (*body)(void*, int), void* context) const {
    const auto both = [&](int worker) {
      if (worker == workers - 1) start(begun_);
      body(context, worker);
    };
    pool_.run(
        workers, [](void* opaque, int worker) { (*static_cast<decltype(both)*>(opaque))(worker); },
        const_cast<void*>(static_cast<const void*>(&both)));
  }

  const ThreadPool& pool_;
  const std::vector<Begun>& begun_;
  mutable bool is_first_ = true;
};

class Forward {
 public:
  Forward(const OpenLayer& layer, const Kernel& kernel, const ThreadPool& pool, const Call& call,
          Buffers& use)
      : layer_(layer), kernel_(kernel), pool_(pool), call_(call), use_(use) {}

  void run() {
    record_.begun_ns = now_ns();
    use_.routing.assign(call_.router, call_.tokens, layer_.packed->shape().experts);
    use_.division.assign(layer_, use_.routing, plan());
    submit();
    compute();
    start(begun_);
    for (const Begun& one : begun_) one.ticket->wait();
    if (layer_.wiring && layer_.wiring->recorder) record();
  }

 private:
  std::span<const int32_t> plan() {
    if (!call_.plan.empty() || !layer_.wiring || !layer_.wiring->policy) return call_.plan;
    const auto experts = static_cast<size_t>(layer_.packed->shape().experts);
    use_.counts.assign(experts, 0);
    use_.plan.assign(experts, kIdleDomain);
    for (const auto& one : use_.routing.active) {
      use_.counts[static_cast<size_t>(one.index)] = one.end - one.begin;
      use_.plan[static_cast<size_t>(one.index)] = kCpuDomain;
    }
    const int64_t asked_ns = now_ns();
    layer_.wiring->policy->plan({layer_.handle, use_.counts, call_.tokens, call_.router.topk}, use_.plan);
    record_.plan_ns = now_ns() - asked_ns;
    return use_.plan;
  }

  // What the host computes for others joins what it has.
  void submit() {
    auto& [host, domains] = use_.division;
    host_experts_ = std::ssize(host);
    for (size_t i = 0; i < domains.size(); ++i) {
      if (domains[i].empty()) continue;
      const Batch batch{*layer_.packed, use_.routing, domains[i], call_.hidden, pool_.max_workers()};
      begun_.push_back({domains[i], layer_.wiring->domains[i].domain->submit(batch)});
      if (begun_.size() == 1) record_.submitted_ns = now_ns() - record_.begun_ns;
    }
    for (const Begun& one : begun_) one.ticket->lend(host);
    if (std::ssize(host) > host_experts_) std::ranges::sort(host, {}, &cpu::HostExpert::index);
    if (begun_.empty()) record_.submitted_ns = now_ns() - record_.begun_ns;
  }

  void compute() {
    cpu::FfnArgs args{
        call_.hidden, call_.tokens, call_.router.topk, use_.routing, use_.division.host, call_.out, {}};
    if (std::ranges::any_of(begun_, [](const Begun& one) { return one.ticket->computes(); }))
      args.initial = [this] { return sums(); };
    kernels_ns_ = begun_.empty()
                      ? cpu::expert_ffn(*layer_.packed, kernel_, pool_, args)
                      : cpu::expert_ffn(*layer_.packed, kernel_, StartingPool(pool_, begun_), args);
  }

  // Of the domains that compute.
  const float* sums() {
    start(begun_);
    use_.sums.assign(static_cast<size_t>(call_.tokens * call_.hidden.cols), 0.0f);
    for (const Begun& one : begun_) {
      if (!one.ticket->computes()) continue;
      one.ticket->wait();
      one.ticket->add_into(use_.sums.data());
    }
    return use_.sums.data();
  }

  void record() {
    record_.layer = layer_.handle;
    record_.took_ns = now_ns() - record_.begun_ns;
    record_.tokens = call_.tokens;
    int64_t rows = 0;
    for (const auto& one : use_.division.host) record_.host_rows += one.end - one.begin;
    for (const auto& one : use_.routing.active) rows += one.end - one.begin;
    for (const Begun& one : begun_)
      for (const Share& share : one.experts) {
        count(share.code, share.end - share.begin, *one.ticket);
        rows -= share.end - share.begin;
      }
    const Time kernels{Kind::kMeasured, static_cast<double>(kernels_ns_), 0};
    record_.took.push_back({kernels, kCpuDomain, host_experts_, rows});
    std::ranges::sort(record_.took, {}, &Took::code);
    layer_.wiring->recorder->add(std::move(record_));
  }

  void count(int32_t code, int64_t rows, const Ticket& ticket) {
    auto found = std::ranges::find(record_.took, code, &Took::code);
    if (found == record_.took.end()) found = record_.took.insert(found, {ticket.time_of(code), code});
    ++found->experts;
    found->rows += rows;
  }

  const OpenLayer& layer_;
  const Kernel& kernel_;
  const ThreadPool& pool_;
  const Call& call_;
  Buffers& use_;
  int64_t host_experts_ = 0;  // the CPU's own
  int64_t kernels_ns_ = 0;
  Record record_;
  std::vector<Begun> begun_;  // last: these end before what they use
};

}  // namespace

void forward(const OpenLayer& layer, const Kernel& kernel, const ThreadPool& pool, const Call& call) {
  Lease buffers;
  Forward(layer, kernel, pool, call, *buffers).run();
}

}  // namespace trimoe::runtime
