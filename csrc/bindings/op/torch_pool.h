// torch's intra-op threads, for the core to borrow.
#pragma once

#include "common/parallel.h"

namespace trimoe {

// `torch.set_num_threads` holds. In a child of fork too, where torch would wait for ever: see the .cpp.
class TorchPool final : public ThreadPool {
 public:
  int max_workers() const override;
  void run(int workers, void (*body)(void*, int), void* context) const override;
};

}  // namespace trimoe
