#include "packed/shard.h"

#include <unistd.h>

#include "common/parallel.h"

namespace trimoe {
namespace {

// One byte of every page that begins in a range.
void touch(const MemoryRange& range, Placing placing) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto end = reinterpret_cast<uintptr_t>(range.end);
  for (uintptr_t at = (reinterpret_cast<uintptr_t>(range.begin) + page - 1) / page * page; at < end;
       at += page) {
    auto* byte = reinterpret_cast<volatile std::byte*>(at);
    // Reading is enough for a file; fresh memory is taken when it is written.
    if (placing == Placing::kFresh)
      *byte = std::byte{0};
    else
      static_cast<void>(*byte);
  }
}

}  // namespace

void place_experts(const LayerShape& shape, const std::byte* experts, Placing placing) {
  const auto nodes = static_cast<int>(numa_nodes().size());
  if (nodes == 1) return;
  on_each_node([&](int node) {
    const auto touch_share = [&](const std::byte* data, const PackedMatrix& matrix) {
      const NodeShares shares{matrix.panels, matrix.panels, nodes};
      touch({data + shares.begin(node) * matrix.panel_bytes(),
             data + shares.begin(node + 1) * matrix.panel_bytes()},
            placing);
    };
    for (int64_t index = 0; index < shape.experts; ++index) {
      const std::byte* expert = experts + index * shape.expert_bytes();
      touch_share(expert, shape.gate_up());
      touch_share(expert + shape.down_offset(), shape.down());
    }
  });
}

}  // namespace trimoe
