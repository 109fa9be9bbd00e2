#include "ndp/timing/stream.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

namespace trimoe::ndp {
namespace {

constexpr size_t kMaxKeptStreams = 256;  // a controller each

// Over all streams.
std::atomic<int64_t> max_bytes = int64_t{32} << 20;
std::atomic<int64_t> kept_bytes = 0;

// With what a pass takes beside its runs: three allocations, a counter, a pointer to it.
int64_t bytes_of(const StreamPass& pass) {
  const size_t runs = pass.gate_up.capacity() + pass.down.capacity();
  return static_cast<int64_t>(sizeof(StreamPass) + runs * sizeof(Run) + 96);
}

}  // namespace

std::vector<Run> WeightStream::phase(int64_t bursts) {
  const int gap = controller_.device().spec().timing.nBL;
  std::vector<Run> runs;
  Completion done{};
  for (int64_t sent = 0, finished = 0; finished < bursts;) {
    for (; sent < bursts && controller_.has_room(false); ++sent)
      controller_.push({traffic_.next(), false, controller_.now(), 0});
    if (!controller_.step(kNever, done)) continue;
    ++finished;
    if (runs.empty() || done.data_end != runs.back().first_end + runs.back().bursts * gap)
      runs.push_back({done.data_end, 0});
    ++runs.back().bursts;
  }
  return runs;
}

StreamPass WeightStream::next() {
  const auto issued = [&](Command command) { return controller_.device().issued(command); };
  const int64_t reads = issued(Command::kRead), activates = issued(Command::kActivate);
  const int64_t refreshes = issued(Command::kRefresh);
  StreamPass pass;
  pass.gate_up = phase(2 * matrix_bursts_);
  pass.down = phase(matrix_bursts_);
  pass.reads = issued(Command::kRead) - reads;
  pass.activates = issued(Command::kActivate) - activates;
  pass.refreshes = issued(Command::kRefresh) - refreshes;
  return pass;
}

// The first passes of one stream. Who needs more than there is room for goes on alone.
class KeptPasses {
 public:
  KeptPasses(const DramSpec& spec, int64_t matrix_bursts) : simulation_(spec, matrix_bursts) {}
  KeptPasses(const KeptPasses&) = delete;
  KeptPasses& operator=(const KeptPasses&) = delete;
  ~KeptPasses() {
    for (const auto& pass : passes_) kept_bytes -= bytes_of(*pass);
  }

  // The pass of that number; or null, and in `beyond` a simulation that goes on from there.
  std::shared_ptr<const StreamPass> pass(size_t index, std::unique_ptr<WeightStream>& beyond) {
    const std::lock_guard lock(mutex_);
    if (index < passes_.size()) return passes_[index];
    // Asked in order: this is the next one.
    if (kept_bytes >= max_bytes) {
      beyond = std::make_unique<WeightStream>(simulation_);
      return nullptr;
    }
    passes_.push_back(std::make_shared<const StreamPass>(simulation_.next()));
    kept_bytes += bytes_of(*passes_.back());
    return passes_.back();
  }

 private:
  std::mutex mutex_;
  WeightStream simulation_;
  std::vector<std::shared_ptr<const StreamPass>> passes_;
};

namespace {

struct Streams {
  std::mutex mutex;
  std::map<std::pair<const DramSpec*, int64_t>, std::shared_ptr<KeptPasses>> kept;
};

Streams& streams() {
  static Streams all;
  return all;
}

std::shared_ptr<KeptPasses> kept_passes(const DramSpec& spec, int64_t matrix_bursts) {
  auto& [mutex, kept] = streams();
  const std::lock_guard lock(mutex);
  if (const auto found = kept.find({&spec, matrix_bursts}); found != kept.end()) return found->second;
  // All are forgotten at once: simpler than knowing which was used last, and rare.
  if (kept.size() >= kMaxKeptStreams || kept_bytes >= max_bytes) kept.clear();
  return kept[{&spec, matrix_bursts}] = std::make_shared<KeptPasses>(spec, matrix_bursts);
}

}  // namespace

int64_t keep_streams(int64_t bytes) {
  auto& [mutex, kept] = streams();
  const std::lock_guard lock(mutex);
  kept.clear();
  return max_bytes.exchange(bytes);
}

bool is_listed(const DramSpec& spec) {
  const auto listed = dram_specs();
  return std::any_of(listed.begin(), listed.end(), [&](const DramSpec& one) { return &one == &spec; });
}

PassReader::PassReader(const DramSpec& spec, int64_t matrix_bursts) {
  if (is_listed(spec))
    kept_ = kept_passes(spec, matrix_bursts);
  else
    simulation_ = std::make_unique<WeightStream>(spec, matrix_bursts);
}

std::shared_ptr<const StreamPass> PassReader::next() {
  if (!simulation_)
    if (auto pass = kept_->pass(passes_++, simulation_)) return pass;
  return std::make_shared<const StreamPass>(simulation_->next());
}

}  // namespace trimoe::ndp
