// How the host has a DIMM do something: descriptors, completions, and what they say.
#include <algorithm>

#include "ndp/system/batch.h"
#include "ndp/system/fleet.h"
#include "packed/layout.h"

namespace trimoe::ndp {
namespace {

constexpr int kTries = 4;  // of a descriptor that arrives corrupt

Descriptor descriptor_of(Opcode opcode, uint8_t flags = 0) {
  Descriptor d;
  d.opcode = static_cast<uint8_t>(opcode);
  d.flags = flags;
  d.rank_mask = 0xff;
  return d;
}

Descriptor configuring(uint32_t number, const ExpertSlot& slot, std::span<const std::byte> told) {
  const unsigned type = static_cast<unsigned>(slot.number) << kNumberShift;
  Descriptor d = descriptor_of(Opcode::kCfgExpert, static_cast<uint8_t>(type));
  d.slot = number;
  d.weight_addr = slot.pieces.size() > 1 ? 0 : local_of(slot.pieces[0].address);
  d.stride = crc32c(told.data(), told.size());
  return d;
}

}  // namespace

void Fleet::reset(int index) {
  const Lock lock(*this);
  Descriptor d = descriptor_of(Opcode::kReset);
  seal(d);
  Dimm& one = dimm(index);
  const Status status = one.submit(d);
  while (one.poll()) {
  }
  if (status != Status::kOk) throw DimmError(index, status, "RESET");
  failures_.erase(index);
  // The host's own copy of the table.
  for (const auto& [expert, resident] : residents_)
    for (const Held& held : resident.held)
      if (held.dimm == index) one.state().slots[held.number] = held.slot;
}

Status Fleet::command(int index, Descriptor descriptor, const Payload& payload) {
  Batch batch(dimm(index));
  batch.send(descriptor, 0, payload);
  return batch.wait();
}

Status Fleet::set_mode(int index, Mode mode) {
  Descriptor d = descriptor_of(Opcode::kModeSet);
  d.bytes = static_cast<uint32_t>(mode);
  return command(index, d);
}

Status Fleet::configure(int index, uint32_t number, const ExpertSlot& slot) {
  const std::vector<std::byte> told = config_payload(slot);
  return command(index, configuring(number, slot, told), {told, {}});
}

// Between calls the host has all ranks, if need be after another try: a descriptor may have been lost.
void Fleet::return_ranks(int index) {
  const DimmState& state = dimm(index).state();
  for (int tries = 0; tries < kTries; ++tries) {
    const bool is_done = std::all_of(state.ranks.begin(), state.ranks.end(),
                                     [](const Rank& one) { return one.mode == Mode::kHost; });
    if (is_done || set_mode(index, Mode::kHost) == Status::kTimeout) return;
  }
}

// One job's tokens, as many at a time as fit the buffer.
void Fleet::send(Batch& batch, const Task& task, std::span<std::byte> unused) const {
  const ExpertShape& shape = task.held->slot.shape;
  const int64_t hidden = shape.hidden, fitting = tokens_that_fit(shape), all = task.job->tokens;
  const Bf16* all_x = task.job->x;
  if (!task.told.empty())
    batch.send(configuring(task.number, task.held->slot, task.told), 0, {task.told, {}});
  for (int64_t first = 0; first < all; first += fitting) {
    const int64_t tokens = std::min(fitting, all - first);
    const auto values = static_cast<size_t>(tokens * hidden);
    std::span<const std::byte> x = unused.first(all_x ? 0 : values * sizeof(Bf16));
    std::span<std::byte> out = unused.first(all_x ? 0 : values * sizeof(float));
    if (all_x) {
      x = std::as_bytes(std::span(all_x + first * hidden, values));
      out = std::as_writable_bytes(std::span(task.out + first * hidden, values));
    }
    Descriptor load = descriptor_of(Opcode::kActBcast), run = descriptor_of(Opcode::kExpertFfn),
               read = descriptor_of(Opcode::kResRead, kWideResult);
    load.bytes = static_cast<uint32_t>(x.size());
    run.slot = task.number;
    run.tokens = static_cast<uint16_t>(tokens);
    run.buf_out = static_cast<uint32_t>(round_up(load.bytes, kLineBytes));
    read.bytes = static_cast<uint32_t>(out.size());
    read.buf_in = run.buf_out;
    batch.send(read, batch.send(run, batch.send(load, 0, {x, {}})), {{}, out});
  }
}

// with_modes: the DIMM's ranks are its own meanwhile; else they are so already.
Status Fleet::drive(int index, std::span<const Task> tasks, bool with_modes) {
  DimmState& state = dimm(index).state();
  state.computes = !tasks.empty() && tasks[0].job->x != nullptr;
  thread_local std::vector<std::byte> unused;  // crosses the channel where nobody looks at it
  if (!state.computes)
    unused.resize(std::max(unused.size(), static_cast<size_t>(state.config.core.buffer_bytes)));
  Batch batch(dimm(index));
  Descriptor mode = descriptor_of(Opcode::kModeSet);
  mode.bytes = static_cast<uint32_t>(state.config.mode);
  if (with_modes) batch.send(mode, 0);
  for (const Task& task : tasks) send(batch, task, unused);
  mode.flags = kLastInBatch;
  mode.bytes = static_cast<uint32_t>(Mode::kHost);
  if (with_modes) batch.send(mode, 0);
  const Status status = batch.wait();
  if (with_modes && status != Status::kOk && status != Status::kTimeout) return_ranks(index);
  state.computes = true;
  return status;
}

}  // namespace trimoe::ndp
