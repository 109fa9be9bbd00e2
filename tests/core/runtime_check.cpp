// The executor below its bindings: in which order things happen, that they happen at once, and that all of a
// call has ended when it returns, whatever failed. With the thread sanitizer also: calls while domains come
// and go.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include <sched.h>

#include "common/error.h"
#include "common/own_threads.h"
#include "ndp/system/expert_key.h"
#include "problem.h"
#include "runtime/fleet_domain.h"
#include "runtime/stand_in.h"

using namespace trimoe;
using namespace trimoe::test;
using namespace trimoe::runtime;

namespace {

// Large enough that a call shares its work among threads.
constexpr Case kCase{"runtime", 48, 128, 96, 6, 2};
const Variant kBf16{"bf16", {Format::kBf16}, false};

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("not so: %s\n", what.c_str());
}

// What happened, in order.
class Log {
 public:
  void add(const std::string& event) {
    const std::lock_guard lock(mutex_);
    text_ += event + " ";
  }
  std::string text() const { return text_; }

 private:
  std::mutex mutex_;
  std::string text_;
};

// first: what the first worker of a region does before its work.
class NotingPool final : public ThreadPool {
 public:
  NotingPool(Log& log, std::function<void()> first = {}) : log_(log), first_(std::move(first)) {}
  int max_workers() const override { return 2; }
  void run(int workers, void (*body)(void*, int), void* context) const override {
    log_.add("cpu");
    const auto both = [&](int worker) {
      if (first_ && worker == 0) first_();
      body(context, worker);
    };
    OwnThreads(2).run(
        workers, [](void* opaque, int worker) { (*static_cast<decltype(both)*>(opaque))(worker); },
        const_cast<void*>(static_cast<const void*>(&both)));
  }

 private:
  Log& log_;
  const std::function<void()> first_;
};

struct Plot {
  bool computes = false;
  float adds = 0;
  const char* fails = "";  // "submit" or "wait"
};

// Notes what is asked of it.
class Watched final : public Domain {
 public:
  Watched(Log& log, std::string name, Plot plot) : log_(log), name_(std::move(name)), plot_(plot) {}

  std::unique_ptr<Ticket> submit(const Batch& batch) override {
    log_.add("submit" + name_);
    check(plot_.fails != std::string("submit"), "to submit", "failure", "again");
    return std::make_unique<Step>(*this, batch);
  }

 private:
  class Step final : public Ticket {
   public:
    Step(const Watched& domain, const Batch& batch) : domain_(domain), batch_(batch) {}
    ~Step() override { domain_.log_.add("end" + domain_.name_); }
    void start() override {
      if (!std::exchange(is_started_, true)) domain_.log_.add("start" + domain_.name_);
    }
    void wait() override {
      domain_.log_.add("wait" + domain_.name_);
      check(domain_.plot_.fails != std::string("wait"), "to wait", "failure", "again");
    }
    void lend(std::vector<cpu::HostExpert>& to) const override {
      if (domain_.plot_.computes) return;
      for (const Share& one : batch_.experts) to.push_back({one, batch_.layer.expert(one.index)});
    }
    bool computes() const override { return domain_.plot_.computes; }
    void add_into(float* sums) const override {
      domain_.log_.add("add" + domain_.name_);
      for (int64_t i = 0; i < kCase.tokens * kCase.hidden; ++i) sums[i] += domain_.plot_.adds;
    }
    Time time_of(int32_t) const override { return {}; }

   private:
    const Watched& domain_;
    const Batch batch_;
    bool is_started_ = false;
  };

  Log& log_;
  const std::string name_;
  const Plot plot_;
};

// A problem whose layer is open.
class Open : public Problem {
 public:
  Open() : Problem(kCase, kBf16), handle(register_layer(shared_layer())) {}
  ~Open() { unregister_layer(handle); }

  std::vector<float> forward(const ThreadPool& pool, const std::vector<int32_t>& plan) const {
    return run(find_layer(handle), pool, plan);
  }
  void watch(Log& log, int32_t code, Plot plot) const {
    attach(handle, {code}, std::make_shared<Watched>(log, std::to_string(code), plot));
  }
  const int64_t handle;
};

void check_order() {
  const Open problem;
  const std::vector<float> alone = problem.forward(OwnThreads(2), {});
  Log log;
  problem.watch(log, 4, {});
  problem.watch(log, 2, {});
  const auto found = problem.forward(NotingPool(log), {4, 2, 0, 4, 2, 0});
  expect(found == alone, "lent experts have the bits of the CPU");
  const std::string text = log.text();
  expect(text.starts_with("submit2 submit4 cpu start2 start4 "),
         "a thread of the CPU starts others: " + text);
  expect(text.ends_with("cpu wait2 wait4 end2 end4 "), "they end after it: " + text);
}

void check_sums() {
  const Open problem;
  Log log;
  // Their sum is 0 in this order, and 1 in others.
  problem.watch(log, 5, {.computes = true, .adds = -1e8f});
  problem.watch(log, 2, {.computes = true, .adds = 1e8f});
  problem.watch(log, 3, {.computes = true, .adds = 1});
  problem.watch(log, 4, {});
  const std::vector<int32_t> plan{2, 3, 5, 4, 0, 0};
  const auto found = problem.forward(NotingPool(log), plan);
  const std::string text = log.text();
  const size_t join = text.find("wait2 add2 wait3 add3 wait5 add5 ");
  expect(join != std::string::npos, "sums are added in order of the codes: " + text);
  expect(text.find("cpu") < join && text.rfind("cpu") > join, "in the middle of the CPU's work: " + text);
  Log other;
  const Open twin;
  for (const int32_t code : {3, 2, 5}) twin.watch(other, code, {.computes = true, .adds = 0});
  twin.watch(other, 4, {});
  expect(found == twin.forward(OwnThreads(1), plan), "1e8 + 1 - 1e8 is 0 in fp32");
}

void check_failures() {
  for (const char* fails : {"submit", "wait"})
    for (const bool computes : {false, true}) {
      const Open problem;
      Log log;
      problem.watch(log, 2, {.computes = computes});
      problem.watch(log, 3, {.computes = computes, .fails = fails});
      problem.watch(log, 4, {.computes = computes});
      std::string got;
      try {
        problem.forward(NotingPool(log), {2, 3, 4, 0, 0, 0});
      } catch (const Error& error) {
        got = error.expected;
      }
      expect(got == std::string("to ") + fails, "the failure is the caller's");
      const std::string text = log.text();
      for (const char* one : {"2", "3", "4"})
        expect((text.find("end" + std::string(one)) != std::string::npos) ==
                   (fails == std::string("wait") || one == std::string("2")),
               "what began has ended: " + text);
      expect(fails != std::string("submit") || text.find("cpu") == std::string::npos,
             "nothing runs then: " + text);
    }
}

std::shared_ptr<ndp::Fleet> fleet_of(const Open& problem, const std::shared_ptr<ndp::Fleet>& made) {
  for (int64_t expert = 0; expert < kCase.experts; ++expert)
    made->place(ndp::expert_key(problem.handle, expert), problem.layer().shape(), ndp::Number::kBf16,
                {problem.shared_layer(), problem.layer().expert(expert)},
                static_cast<int>(expert) % made->size());
  return made;
}

std::shared_ptr<ndp::Fleet> new_fleet() {
  ndp::DimmConfig config;
  config.spec = &ndp::dram_spec("4800B");
  return std::make_shared<ndp::Fleet>(config, 2);
}

// The DIMMs' thread is held until the CPU has begun, which gets on when they have ended: each needs the
// other.
void check_overlap() {
  for (const Arithmetic arithmetic : {Arithmetic::kHost, Arithmetic::kCore}) {
    const Open problem;
    const auto fleet = fleet_of(problem, new_fleet());
    const auto domain = std::make_shared<FleetDomain>(problem.handle, fleet, arithmetic);
    attach(problem.handle, domain->codes(), domain);
    std::promise<void> cpu_began;
    const auto held = fleet->worker().submit([began = cpu_began.get_future().share()] { began.wait(); });
    Log log;
    int64_t before = -1, meanwhile = -1;
    const NotingPool pool(log, [&] {
      if (before >= 0) return;
      before = fleet->counters().steps;
      cpu_began.set_value();
      using Clock = std::chrono::steady_clock;
      const auto patience = Clock::now() + std::chrono::seconds(60);
      while (meanwhile < 1 && Clock::now() < patience) meanwhile = fleet->counters().steps;
    });
    problem.forward(pool, {2, 3, 2, 0, 0, 0});
    expect(before == 0 && meanwhile == 1, "DIMMs run while the CPU does");
  }
}

// The work of a fleet that is only emulated takes no CPU from the one who has it done.
void check_worker() {
  int policy = -1;
  Worker worker;
  const auto done = worker.submit([&] { policy = ::sched_getscheduler(0); });
  worker.wake();
  done.wait();
  expect(policy == SCHED_BATCH, "the worker does not preempt who wakes it");
}

// The host reads split experts where they were cut from, and nobody can change the parts behind its back.
void check_split() {
  const Open problem;
  const std::vector<float> alone = problem.forward(OwnThreads(2), {});
  const auto fleet = fleet_of(problem, new_fleet());
  const auto domain = std::make_shared<FleetDomain>(problem.handle, fleet, Arithmetic::kHost);
  attach(problem.handle, domain->codes(), domain);
  const std::vector<int64_t> keys{ndp::expert_key(problem.handle, 0), ndp::expert_key(problem.handle, 1)};
  for (const ndp::Layout layout : {ndp::Layout::kSplit, ndp::Layout::kLocalized, ndp::Layout::kSplit}) {
    for (const int64_t key : keys) fleet->relayout(key, layout, 1);
    const auto packed = fleet->packed(keys), again = fleet->packed(keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      expect(packed[i].layout == layout, "experts lie as they were laid");
      expect(packed[i].bytes == again[i].bytes, "nothing is copied to be read");
    }
    const int32_t code = layout == ndp::Layout::kSplit ? kSplitDomain : 3;
    expect(problem.forward(OwnThreads(2), {code, code, 0, 0, 0, 0}) == alone, "the bits of the CPU");
  }
  const auto is_writable = [](ndp::Dimm& dimm) {
    for (const auto& [number, slot] : dimm.state().slots)
      for (const ndp::Piece& piece : slot.pieces)
        if (dimm.state().memory.write(ndp::local_of(piece.address), 1)) return true;
    return false;
  };
  expect(!fleet->with_dimm(0, is_writable) && !fleet->with_dimm(1, is_writable),
         "parts cannot be written to");
}

// Calls under way keep what they began with; others find a code or are told that there is none.
void check_rewiring() {
  const Open problem;
  const auto fleet = new_fleet();
  const std::vector<float> alone = problem.forward(OwnThreads(2), {});
  std::atomic<int> ran{0}, refused{0};
  std::atomic<bool> done{false};
  const auto recorder = std::make_shared<Recorder>(16);
  std::jthread changes([&] {
    for (int time = 0; time < 60; ++time) {
      fleet_of(problem, fleet);
      auto domain = std::make_shared<FleetDomain>(problem.handle, fleet, Arithmetic::kHost);
      attach(problem.handle, domain->codes(), domain);
      attach(problem.handle, {kGpuDomain}, std::make_shared<StandIn>());
      set_policy(problem.handle, std::make_shared<FixedPlan>(std::vector<int32_t>{1, 1, 2, 3, 0, 0}));
      set_recorder(problem.handle, recorder);
      for (const int before = ran; ran < before + 3;) std::this_thread::yield();
      set_policy(problem.handle, nullptr);
      detach(problem.handle, kGpuDomain);
      detach_all(problem.handle);
      recorder->drain();
      // The experts leave with the last call that uses the domain.
      domain.reset();
      const auto has_experts = [](ndp::Dimm& dimm) { return dimm.state().memory.used_bytes() > 0; };
      while (fleet->with_dimm(0, has_experts) || fleet->with_dimm(1, has_experts)) std::this_thread::yield();
    }
    done = true;
  });
  const auto call = [&](const std::vector<int32_t>& plan) {
    while (!done) try {
        expect(problem.forward(OwnThreads(2), plan) == alone, "the same bits, whoever comes and goes");
        ++ran;
      } catch (const Error&) {
        ++refused;
      }
  };
  std::jthread other([&] { call({1, 1, 2, 3, 0, 0}); });
  call({});
  other.join();
  expect(refused > 0, "some calls came when nobody was there");
}

}  // namespace

int main() {
  check_order();
  check_sums();
  check_failures();
  check_overlap();
  check_worker();
  check_split();
  check_rewiring();
  std::printf("%d wrong\n", failures);
  return failures ? 1 : 0;
}
