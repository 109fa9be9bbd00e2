// Who besides the CPU runs experts of a call: what it is given, what it does meanwhile, what comes of it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "cpu/ffn/expert_ffn.h"

namespace trimoe::runtime {

// An expert of a call: its rows of the routing, and the code of the domain that the plan has it in.
struct Share : cpu::Routing::Expert {
  int32_t code;
};

// What of a call belongs to one domain. All of it stays until the ticket is gone.
struct Batch {
  const Layer& layer;
  const cpu::Routing& routing;     // of the whole call, sorted once
  std::span<const Share> experts;  // in order of index
  RowSource hidden;                // [tokens, H] of the call
  int workers;                     // threads that the caller would take
};

// Where a time comes from. No figure mixes them.
enum class Kind : uint8_t { kMeasured, kEmulated, kModelled };
inline constexpr std::string_view kKindNames[] = {"measured", "emulated", "modelled"};

struct Time {
  Kind kind = Kind::kModelled;
  double took_ns = 0;
  int64_t host_ns = 0;  // real: what emulating it took, beside the host's kernels
};

// A batch that a domain has taken. It ends before its ticket does, whatever happens.
class Ticket {
 public:
  Ticket() = default;
  virtual ~Ticket() = default;
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

  // Makes sure that the batch begins, from any one thread; a domain that began at once has nothing to do.
  virtual void start() {}

  // Until it is done; throws what failed. Once done it returns at once.
  virtual void wait() = 0;

  // Experts whose arithmetic is the host's, on the bytes as the domain has them: they are computed among the
  // CPU's own, so that the bits are the same. Those of a domain that computes are none.
  virtual void lend(std::vector<cpu::HostExpert>& to) const = 0;

  // Whether the domain has sums of its own; add_into() adds them to sums [tokens, H], after wait().
  virtual bool computes() const { return false; }
  virtual void add_into(float* /*sums*/) const {}

  // What a code took, after wait().
  virtual Time time_of(int32_t code) const = 0;
};

class Domain {
 public:
  Domain() = default;
  virtual ~Domain() = default;
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  // Takes the batch, without a pause: where a thread must be woken, start() or wait() does. Any thread may,
  // several at once. Throws Error for an expert that it cannot run as the code says.
  virtual std::unique_ptr<Ticket> submit(const Batch& batch) = 0;
};

}  // namespace trimoe::runtime
