// A run of descriptors to one DIMM, as the host sends them.
#pragma once

#include "ndp/system/dimm.h"

namespace trimoe::ndp {

// Sends descriptors to one DIMM, after all that it was given before, and keeps the first failure. Completions
// of others stay where they are.
class Batch {
 public:
  explicit Batch(Dimm& dimm) : dimm_(dimm) {
    dimm.run();
    others_ = dimm.unpolled();
  }

  // Returns the tag. Waits where the ring has no room; sends nothing more once a failure is known.
  uint16_t send(Descriptor descriptor, uint16_t after, const Payload& payload = {}) {
    descriptor.tag = tag_ = tag_ == 0xffff ? uint16_t{1} : static_cast<uint16_t>(tag_ + 1);
    descriptor.dep_tag = after;
    seal(descriptor);
    if (status_ == Status::kOk && dimm_.submit(descriptor, payload) == Status::kQueueFull &&
        wait() == Status::kOk)
      dimm_.submit(descriptor, payload);
    return tag_;
  }
  // Until all has ended: the first failure so far, or OK.
  Status wait() {
    dimm_.run();
    for (const Ended& ended : dimm_.poll_after(others_))
      if (status_ == Status::kOk) status_ = ended.status;
    return status_;
  }

 private:
  Dimm& dimm_;
  Status status_ = Status::kOk;
  uint16_t tag_ = 0;
  size_t others_ = 0;
};

}  // namespace trimoe::ndp
