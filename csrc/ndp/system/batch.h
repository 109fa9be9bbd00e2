// A run of descriptors to one DIMM, as the host sends them.
#pragma once

#include "ndp/system/dimm.h"

namespace trimoe::ndp {

// Sends descriptors to one DIMM and keeps the first failure.
class Batch {
 public:
  explicit Batch(Dimm& dimm) : dimm_(dimm) {}

  // Returns the tag.
  uint16_t send(Descriptor descriptor, uint16_t after, const Payload& payload = {}) {
    descriptor.tag = tag_ = tag_ == 0xffff ? uint16_t{1} : static_cast<uint16_t>(tag_ + 1);
    descriptor.dep_tag = after;
    seal(descriptor);
    if (dimm_.submit(descriptor, payload) == Status::kQueueFull) {
      wait();
      dimm_.submit(descriptor, payload);
    }
    return tag_;
  }
  Status wait() {
    dimm_.run();
    while (const auto ended = dimm_.poll())
      if (status_ == Status::kOk) status_ = ended->status;
    return status_;
  }

 private:
  Dimm& dimm_;
  Status status_ = Status::kOk;
  uint16_t tag_ = 0;
};

}  // namespace trimoe::ndp
