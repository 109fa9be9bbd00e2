#include "runtime/layer.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include <sys/random.h>

#include "common/error.h"
#include "common/fork_mutex.h"

namespace trimoe::runtime {
namespace {

// A handle is a random number of the process, then a count: what was saved elsewhere (a graph of
// torch.export) is an error here, and so is a closed layer's, never another layer. Handles that a fork
// inherits stay good; those that it makes are its own.
constexpr int64_t kMaxCount = (int64_t{1} << kHandleCountBits) - 1;

int64_t draw_nonce() {
  uint64_t bits = 0;
  check<Failure>(::getrandom(&bits, sizeof bits, 0) == sizeof bits,
                 "random numbers from the system (getrandom)", "none");
  // Not 0, so that no small number is a handle.
  return static_cast<int64_t>(bits >> (kHandleCountBits + 1) | 1);
}

struct Registry {
  ForkMutex mutex;
  std::unordered_map<int64_t, OpenLayer> layers;
  int64_t nonce = draw_nonce();
  unsigned generation = fork_generation();  // of the process that drew the nonce
  int64_t count = 0;
};

// Never destroyed: a thread may still be in a call when the process ends, and what domains keep may be
// Python's, which is gone by then.
Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

// By lowest code of a place; the one that has none comes last.
int32_t rank_of(const Wiring::Attached& one) {
  int32_t lowest = INT32_MAX;
  for (const int32_t code : one.codes)
    if (code > kCpuDomain) lowest = std::min(lowest, code);
  return lowest;
}

void index(Wiring& wiring) {
  std::ranges::sort(wiring.domains, {}, rank_of);
  wiring.by_code.clear();
  for (size_t i = 0; i < wiring.domains.size(); ++i)
    for (const int32_t code : wiring.domains[i].codes) {
      const auto at = static_cast<size_t>(code - kSplitDomain);
      if (wiring.by_code.size() <= at) wiring.by_code.resize(at + 1, -1);
      wiring.by_code[at] = static_cast<int16_t>(i);
    }
}

// Replaces a layer's wiring by one that has been changed; false for a layer that is not open. What the old
// one alone had is let go of without the lock.
template <typename Change>
bool rewire(int64_t handle, const Change& change) {
  std::shared_ptr<const Wiring> old;
  const std::unique_lock lock(registry().mutex);
  const auto found = registry().layers.find(handle);
  if (found == registry().layers.end()) return false;
  OpenLayer& layer = found->second;
  auto next = layer.wiring ? std::make_shared<Wiring>(*layer.wiring) : std::make_shared<Wiring>();
  change(*next);
  index(*next);
  old = std::move(layer.wiring);
  layer.wiring = next->is_empty() ? nullptr : std::move(next);
  return true;
}

void check_open(bool open, int64_t handle) {
  check(open, "the handle of an open ExpertLayer of this process", handle,
        "keeping the ExpertLayer while its handle is in use, and exporting anew in each process");
}

}  // namespace

std::string Wiring::codes() const {
  std::string text = "0 (CPU)";
  int32_t last_dimm = -1;
  for (const Attached& one : domains)
    for (const int32_t code : one.codes) last_dimm = std::max(last_dimm, code);
  if (find(kGpuDomain) >= 0) text += ", 1 (GPU)";
  if (last_dimm >= kFirstDimmDomain)
    text += ", " + std::to_string(kFirstDimmDomain) + " to " + std::to_string(last_dimm) + " (DIMMs)";
  if (find(kSplitDomain) >= 0) text += ", -2 (split over the DIMMs)";
  return text;
}

int64_t register_layer(std::shared_ptr<Layer> layer) {
  Registry& all = registry();
  const std::unique_lock lock(all.mutex);
  check<Failure>(all.count < kMaxCount, "at most 2^24 - 1 expert layers in the life of a process", "one more",
                 "a new process");
  if (all.generation != fork_generation()) {
    all.nonce = draw_nonce();
    all.generation = fork_generation();
  }
  const int64_t handle = all.nonce << kHandleCountBits | ++all.count;
  all.layers.emplace(handle, OpenLayer{handle, std::move(layer), nullptr});
  return handle;
}

void unregister_layer(int64_t handle) {
  decltype(Registry::layers)::node_type gone;  // freed without the lock
  const std::unique_lock lock(registry().mutex);
  gone = registry().layers.extract(handle);
}

OpenLayer find_layer(int64_t handle) {
  const std::shared_lock lock(registry().mutex);
  const auto found = registry().layers.find(handle);
  check_open(found != registry().layers.end(), handle);
  return found->second;
}

void attach(int64_t handle, std::vector<int32_t> codes, std::shared_ptr<Domain> domain) {
  const bool is_open = rewire(handle, [&](Wiring& wiring) {
    for (const int32_t code : codes) {
      check(code == kSplitDomain || (code > kCpuDomain && code < kFirstDimmDomain + 4096),
            "the code of a GPU, a DIMM or of experts that are split", code, "trimoe.domains");
      check(wiring.find(code) < 0 && std::ranges::count(codes, code) == 1,
            "a code that the layer has no domain for", code, "detach() first");
    }
    wiring.domains.push_back({std::move(domain), std::move(codes)});
  });
  check_open(is_open, handle);
}

void set_policy(int64_t handle, std::shared_ptr<Policy> policy) {
  check_open(rewire(handle, [&](Wiring& wiring) { wiring.policy = policy; }), handle);
}

void set_recorder(int64_t handle, std::shared_ptr<Recorder> recorder) {
  check_open(rewire(handle, [&](Wiring& wiring) { wiring.recorder = recorder; }), handle);
}

void detach(int64_t handle, int32_t code) {
  rewire(handle, [&](Wiring& wiring) {
    if (const int at = wiring.find(code); at >= 0) wiring.domains.erase(wiring.domains.begin() + at);
  });
}

void detach_all(int64_t handle) {
  rewire(handle, [](Wiring& wiring) { wiring.domains.clear(); });
}

}  // namespace trimoe::runtime
