// The DIMMs of a machine: where each expert lies, and how the host has them run, moved and laid out.
#pragma once

#include <mutex>

#include "common/parallel.h"
#include "ndp/system/dimm.h"

namespace trimoe::ndp {

class Batch;

// Tokens of one expert: x [tokens, H], out [tokens, H], without router weights. Without x and out, in all
// jobs of a step, time alone is emulated: the host computes elsewhere, on bytes_at().
struct ExpertJob {
  int64_t expert;  // the key that it was placed with
  const Bf16* x;
  int64_t tokens;
  float* out;
};

struct Location {
  int dimm;  // that has the slot
  uint32_t slot;
  bool striped;
  int64_t bytes;
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
  Dimm& dimm(int index);
  DimmState* peer(int index) override;

  // Packed bytes that lie in host memory become the DIMM's: no copy, `owner` keeps them.
  void place(int64_t expert, const ExpertShape& shape, Number number, const std::byte* data,
             std::shared_ptr<const void> owner, int dimm);
  void remove(int64_t expert);
  void remove_all(int64_t first, int64_t end);  // experts of that range of keys
  Location where(int64_t expert) const;
  int64_t hidden_of(int64_t expert) const;
  // The bytes as they lie on the DIMMs now; bytes_at(): of a localized one, in place.
  std::vector<std::byte> read(int64_t expert) const;
  const std::byte* bytes_at(int64_t expert) const;
  uint64_t address_of(int64_t expert) const;  // in its DIMM, of a localized one

  // Runs every job on the DIMM of its expert, the DIMMs at once; emulated nanoseconds. Throws DimmError for
  // the first DIMM that failed; the jobs of the others are done then.
  double run(std::span<const ExpertJob> jobs, const ThreadPool& pool);

  // Over the link, with commit: after a DimmError the expert is where it was. Emulated nanoseconds.
  double migrate(int64_t expert, int to);
  // Over all DIMMs (striped) or on one.
  double relayout(int64_t expert, bool striped);
  // The host takes what a DIMM that does not answer any longer holds to the others, in turns; experts moved.
  int64_t evacuate(int from);

  // RESET of a DIMM that hangs; its experts get their slots back.
  void reset(int index);

  // DIMMs whose last step failed, and how; empty when all is well. reset() and a step that goes well clear
  // it.
  std::map<int, Status> failures() const;

  FleetCounters counters() const;

 private:
  struct Resident {
    ExpertSlot slot;  // every piece is a region of its own
    int dimm;         // that has the slot
    uint32_t number;  // of the slot
  };

  const Resident& find(int64_t expert) const;
  const Piece& localized(int64_t expert) const;
  uint32_t free_slot(int dimm) const;
  int64_t tokens_that_fit(const ExpertShape& shape) const;
  std::vector<int> alive() const;
  std::vector<Piece> allocate(int64_t bytes, const std::vector<int>& on);
  void release(const std::vector<Piece>& pieces);
  void copy_by_host(const std::vector<Piece>& from, const std::vector<Piece>& to);

  Status command(int dimm, Descriptor descriptor, const Payload& payload = {});
  Status set_mode(int dimm, Mode mode);
  Status configure(const Resident& resident);
  void send(Batch& batch, const ExpertJob& job, std::span<std::byte> unused) const;
  Status drive(int dimm, std::span<const ExpertJob* const> jobs);
  void commit(int64_t expert, const Resident& old, const Resident& moved, const Descriptor& descriptor,
              const Payload& payload);
  double finish_move(double start_ns);
  double start_step();  // all DIMMs at one time
  double step_ns(double start_ns);

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Dimm>> dimms_;
  std::map<int64_t, Resident> residents_;
  std::map<int, Status> failures_;
  FleetCounters counters_;
  double clock_ns_ = 0;
};

}  // namespace trimoe::ndp
