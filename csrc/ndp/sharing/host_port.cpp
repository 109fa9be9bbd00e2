#include "ndp/sharing/host_port.h"

#include <cmath>
#include <limits>

namespace trimoe::ndp {
namespace {

constexpr double kNeverComes = std::numeric_limits<double>::infinity();
constexpr size_t kLookAhead = 32;    // requests of the backlog that may go before older ones
constexpr int64_t kOnBus = 2;        // a command on the channel's command bus
constexpr int64_t kTurnChannel = 2;  // between reads and writes

}  // namespace

HostPort::HostPort(const DramSpec& spec, const HostLoad& load, int ranks)
    : spec_(spec),
      load_(load),
      ranks_(ranks),
      traffic_(spec, 1, load.pattern, load.seed),
      random_(load.seed + 1),
      period_(load.gbps > 0 ? spec.geometry.burst_bytes / (load.gbps * spec.clock_ns) : 0),
      next_arrival_(load.gbps > 0 ? 0 : kNeverComes),
      offloaded_row_(static_cast<size_t>(spec.geometry.banks()), kNoRow) {}

int64_t HostPort::next_event(int64_t now) const {
  int64_t at = kNever;
  if (std::isfinite(next_arrival_) && outstanding_ < load_.outstanding)
    at = static_cast<int64_t>(std::ceil(next_arrival_));
  if (!returns_.empty())
    at = std::min(at, returns_.front().data_end + int64_t{load_.return_batch} * spec_.timing.nBL);
  return std::max(at, now + 1);
}

void HostPort::arrive(int64_t now, int64_t end) {
  const auto clock = static_cast<double>(now);
  for (;
       next_arrival_ <= clock && next_arrival_ < static_cast<double>(end) && outstanding_ < load_.outstanding;
       ++outstanding_) {
    RankRequest request;
    request.place = traffic_.next();
    request.place.row = spec_.geometry.rows / 2 + request.place.row % (spec_.geometry.rows / 2);
    request.write = random_.one_in_percent(load_.write_pct);
    request.arrival = static_cast<int64_t>(std::ceil(next_arrival_));
    request.tag = std::ssize(answers_);
    answers_.push_back({request.arrival, 0, 0, request.write});
    backlog_.push_back(request);
    const double drawn = static_cast<double>(random_.next() >> 11) * 0x1p-53;
    next_arrival_ -= period_ * std::log1p(-drawn);
  }
  // A host that had to stall goes on from there: it does not catch up.
  if (outstanding_ >= load_.outstanding) next_arrival_ = std::max(next_arrival_, clock);
  if (next_arrival_ >= static_cast<double>(end)) next_arrival_ = kNeverComes;
}

// From `from` on, so many bursts over the channel; the clock behind them.
int64_t HostPort::take_channel(int64_t from, bool write, int64_t bursts) {
  const int64_t turn = write == channel_writes_ ? 0 : kTurnChannel;
  channel_writes_ = write;
  channel_free_ = std::max(from, channel_free_ + turn) + bursts * spec_.timing.nBL;
  return channel_free_;
}

// Column command, and what the host believes is needed before it: the NDP's controller may know better.
void HostPort::offload(RankRequest& request, int64_t now) {
  command_bus_free_ = std::max(command_bus_free_, now) + kOnBus * request.commands;
  const int64_t sent = command_bus_free_;
  const int64_t data = request.write ? take_channel(sent + spec_.timing.nCWL, true, 1) + kBufferClocks : 0;
  request.arrival = std::max(sent + kDriverClocks + kDecodeClocks, data);
}

void HostPort::feed(SharedRank& rank) {
  const bool concurrent = rank.mode() == Mode::kConcurrent;
  uint64_t full = 0;  // banks that had no room for an older request
  size_t looked = 0;
  for (auto one = backlog_.begin(); one != backlog_.end() && looked < kLookAhead; ++looked) {
    RankRequest& request = *one;
    const int bank = rank.device().bank_index(request.place);
    int& row = offloaded_row_[static_cast<size_t>(bank)];
    request.commands = row == request.place.row ? 1 : row == kNoRow ? 2 : 3;
    if (((full >> bank) & 1) != 0 || !rank.has_room(request)) {
      full |= uint64_t{1} << bank;
      ++one;
      continue;
    }
    if (concurrent) {
      row = request.place.row;
      offload(request, rank.now());
    }
    rank.push(request);
    one = backlog_.erase(one);
  }
}

void HostPort::finish(int64_t tag, int64_t end) {
  Answer& answer = answers_[static_cast<size_t>(tag)];
  answer.end = end;
  ++answer.times;
  --outstanding_;
}

void HostPort::served(const Served& one, Mode mode) {
  if (mode == Mode::kConcurrent && !one.request.write)
    returns_.push_back(one);
  else
    finish(one.request.tag, one.data_end);
}

void HostPort::answer(const SharedRank& rank) {
  if (returns_.empty()) return;
  const bool full = std::ssize(returns_) >= load_.return_batch;
  const bool last = backlog_.empty() && rank.waiting_reads() == 0;
  const int64_t patience = int64_t{load_.return_batch} * spec_.timing.nBL;
  if (!full && !last && rank.now() < returns_.front().data_end + patience) return;
  // All is there, the host hears of it, asks for it, and gets it burst after burst.
  const int64_t told = std::max(rank.now(), returns_.back().data_end) + ranks_ / 2;
  command_bus_free_ = std::max(command_bus_free_, told) + kOnBus;
  int64_t from = command_bus_free_ + kDriverClocks + kBufferClocks;
  for (const Served& one : returns_) {
    from = take_channel(from, false, 1);
    finish(one.request.tag, from);
  }
  returns_.clear();
}

}  // namespace trimoe::ndp
