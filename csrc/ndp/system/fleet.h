// The DIMMs of a machine: where each expert lies, and how the host has them run, moved and laid out.
#pragma once

#include <map>
#include <string_view>
#include <unordered_map>

#include "common/fork_mutex.h"
#include "common/parallel.h"
#include "common/worker.h"
#include "ndp/system/dimm.h"

namespace trimoe::ndp {

class Batch;

// How an expert lies: whole on one DIMM; its bytes spread over all; or cut, so that every DIMM has a part of
// each matrix, packed for itself (split.h).
enum class Layout : uint8_t { kLocalized, kStriped, kSplit };
inline constexpr std::string_view kLayoutNames[] = {"localized", "striped", "split"};
constexpr std::string_view name_of(Layout layout) { return kLayoutNames[static_cast<size_t>(layout)]; }

// Tokens of one expert: x [tokens, H], out [tokens, H], without router weights. Without x and out, in all
// jobs of a step, time alone is emulated: the host computes elsewhere.
struct ExpertJob {
  int64_t expert;  // the key that it was placed with
  const Bf16* x;
  int64_t tokens;
  float* out;
  int dimm = -1;  // that runs a striped expert, and gathers it; -1: who has its slot
};

// An expert as it lies: its packed bytes stay as they are when it moves on.
struct Packed {
  Layout layout;
  int dimm;  // that has the slot; of a split expert the first
  std::shared_ptr<const std::byte> bytes;
};

struct Location {
  Layout layout;
  int dimm;  // that has the slot; of a split expert the first
  uint32_t slot;
  int64_t bytes;
};

// What a step took: emulated nanoseconds, of the slowest DIMM and of each that ran something; and real ones,
// in which the host emulated and computed the same.
struct StepTook {
  double ns = 0;
  std::vector<std::pair<int, double>> by_dimm;
  int64_t host_ns = 0;
};

struct FleetCounters {
  int64_t steps = 0, experts = 0, rows = 0;  // rows: (token, expert) pairs
  double busy_ns = 0;                        // emulated: of each step its slowest DIMM
  int64_t host_ns = 0;                       // real: what the host took to compute and emulate the same
  int64_t moves = 0;
  double move_ns = 0;
};

// Calls are serialised. Time is emulated and moves on with every call; between calls the host has all ranks.
class Fleet final : public Peers {
 public:
  Fleet(const DimmConfig& config, int dimms);

  int size() const { return static_cast<int>(dimms_.size()); }
  DimmState* peer(int index) override;
  // Where steps can run while their caller does something else.
  Worker& worker() { return worker_; }

  // Calls use(Dimm&) while nothing else happens to the fleet. Throws Error for an unknown DIMM.
  template <typename Use>
  auto with_dimm(int index, const Use& use) {
    const Lock lock(*this);
    return use(dimm(index));
  }

  // Packed bytes that lie in host memory become the DIMMs': no copy but for the parts of a split expert,
  // which nobody can write to, and whose whole bytes are kept for packed(). dimm: that has a localized
  // expert, or the slot of a striped one.
  void place(int64_t expert, const ExpertShape& shape, Number number,
             const std::shared_ptr<const std::byte>& data, int dimm, Layout layout = Layout::kLocalized);
  void remove(int64_t expert);
  void remove_all(int64_t first, int64_t end);  // experts of that range of keys
  Location where(int64_t expert) const;
  int64_t hidden_of(int64_t expert) const;
  // The packed bytes as they lie on the DIMMs now, those of a split expert put together again.
  std::vector<std::byte> read(int64_t expert) const;
  // The same without a copy, of many at once.
  std::vector<Packed> packed(std::span<const int64_t> experts) const;
  uint64_t address_of(int64_t expert) const;  // in its DIMM, of a localized one

  // Runs every job where its expert lies, the DIMMs at once; the parts of a split expert are added in order
  // of the DIMMs. Throws DimmError for the first DIMM that failed; the jobs of the others are done then.
  StepTook run(std::span<const ExpertJob> jobs, const ThreadPool& pool);

  // Over the link, with commit: after a DimmError, which names the DIMM that failed, the expert is where it
  // was. Emulated nanoseconds.
  double migrate(int64_t expert, int to);
  // As migrate(). Over all DIMMs that answer, two at least; or localized on one, -1: that has its slot. What
  // is split the host cuts and puts together, over the channels.
  double relayout(int64_t expert, Layout layout, int dimm = -1);
  // The host copies every expert that has bytes on a DIMM, whatever its layout, to one of the others, in
  // turns; experts moved. It moves all that it can, then throws: DimmError where memory cannot be read,
  // Failure where no other DIMM answers and has room.
  int64_t evacuate(int from);

  // RESET of a DIMM that hangs; its experts get their slots back.
  void reset(int index);

  // DIMMs whose last step failed, and how; empty when all is well. reset() and a step that goes well clear
  // it.
  std::map<int, Status> failures() const;

  FleetCounters counters() const;

 private:
  // Whoever holds it changes the fleet. What the fleet lets go of meanwhile, it lets go of afterwards: that
  // may be Python's, and somebody who waits for this lock may have Python's.
  class Lock {
   public:
    explicit Lock(const Fleet& fleet) : fleet_(fleet) { fleet_.mutex_.lock(); }
    ~Lock() {
      const auto gone = std::move(fleet_.released_);
      fleet_.released_.clear();
      fleet_.mutex_.unlock();
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    const Fleet& fleet_;
  };
  struct Held {
    int dimm;
    uint32_t number;  // of the slot
    ExpertSlot slot;  // every piece is a region of its own
  };
  struct Resident {
    ExpertShape shape;
    Number number;
    Layout layout;
    std::vector<Held> held;                  // one; of a split expert one for each DIMM that has a part
    std::shared_ptr<const std::byte> whole;  // all its bytes; of a split expert what the parts were cut from
  };
  // What one DIMM does for a job.
  struct Task {
    const ExpertJob* job;
    const Held* held;
    float* out;
    uint32_t number;              // of the slot that it uses
    std::vector<std::byte> told;  // the CFG_EXPERT that comes first: of what another DIMM has the slot of
  };
  struct Step;

  Dimm& dimm(int index);
  const Resident& find(int64_t expert) const;
  const Held& localized(int64_t expert) const;
  uint32_t free_slot(int dimm) const;
  int64_t tokens_that_fit(const ExpertShape& shape) const;
  std::vector<int> alive() const;
  std::vector<int64_t> experts_on(int dimm) const;

  std::vector<Piece> spread(const std::shared_ptr<const std::byte>& data, bool writable, int64_t bytes,
                            const std::vector<int>& on);
  Resident lay(const ExpertShape& shape, Number number, Layout layout, int home,
               const std::shared_ptr<const std::byte>& data);
  void configure_all(const Resident& resident);
  void put_together(const Resident& resident, std::byte* to) const;
  void release(const std::vector<Piece>& pieces);
  void drop(const Resident& resident);
  void move_to(int64_t expert, int to);
  void take_slot(int64_t expert, int to);
  void respread(int64_t expert, Layout layout);
  void count_copy(const Resident& from, const Resident& to);
  Resident moved_by_host(const Resident& resident, Layout layout, int home);
  Resident settle(const Resident& resident, const std::vector<int>& others, int64_t turn);

  Status command(int dimm, Descriptor descriptor, const Payload& payload = {});
  Status set_mode(int dimm, Mode mode);
  void return_ranks(int dimm);
  Status configure(int dimm, uint32_t number, const ExpertSlot& slot);
  void send(Batch& batch, const Task& task, std::span<std::byte> unused) const;
  Status drive(int dimm, std::span<const Task> tasks, bool with_modes);
  void add(Step& step, const ExpertJob& job);
  void run_gathering(Step& step);
  void finish(Step& step, std::span<const ExpertJob> jobs);
  int silent_of(const std::set<int>& dimms, int otherwise) const;
  void commit(int64_t expert, const Resident& old, const Resident& moved, const Descriptor& descriptor,
              const Payload& payload);
  double finish_move(double start_ns);
  double start_step();  // all DIMMs at one time
  double step_ns(double start_ns);

  mutable ForkMutex mutex_;
  mutable std::vector<std::shared_ptr<const void>> released_;
  std::vector<std::unique_ptr<Dimm>> dimms_;
  std::unordered_map<int64_t, Resident> residents_;
  std::map<int, Status> failures_;
  FleetCounters counters_;
  double clock_ns_ = 0;
  Worker worker_;
};

}  // namespace trimoe::ndp
