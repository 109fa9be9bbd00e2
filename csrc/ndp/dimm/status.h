// How a command ended. The names are part of the Python API.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "common/error.h"

namespace trimoe::ndp {

enum class Status : uint8_t {
  kOk,
  kAborted,      // by ABORT, or because what it depends on failed
  kBadCrc,       // the descriptor is not what the host wrote
  kBadOpcode,    // no such command
  kBadSlot,      // no expert in the slot, or no such slot
  kBadAddress,   // outside the DIMM, or nothing there
  kBufOverflow,  // tokens that the buffer of a rank does not hold
  kMode,         // the host has a rank of the mask
  kTimeout,      // no answer
  kEcc,          // memory that cannot be corrected
  kBadField,     // a field that the command cannot take
  kQueueFull,    // no room in the ring
  kCount
};

constexpr const char* name_of(Status status) {
  constexpr const char* kNames[] = {"OK",       "ABORTED",     "BAD_CRC",      "BAD_OPCODE",
                                    "BAD_SLOT", "BAD_ADDRESS", "BUF_OVERFLOW", "MODE",
                                    "TIMEOUT",  "ECC",         "BAD_FIELD",    "QUEUE_FULL"};
  static_assert(sizeof(kNames) / sizeof(*kNames) == static_cast<int>(Status::kCount));
  return kNames[static_cast<int>(status)];
}

// A DIMM that failed: whoever catches it can run the expert elsewhere, its weights are where they were.
class DimmError : public Failure {
 public:
  DimmError(int number, Status how, const std::string& during)
      : DimmError(number, how, during, {{number, how}}) {}
  // all: of the same step, this one among them.
  DimmError(int number, Status how, const std::string& during, std::map<int, Status> all)
      : Failure("DIMM " + std::to_string(number) + " to finish " + during, name_of(how),
                "another domain for its experts (plan entry 0), or reset()"),
        dimm(number),
        status(how),
        failures(std::move(all)) {}
  const int dimm;
  const Status status;
  const std::map<int, Status> failures;
};

}  // namespace trimoe::ndp
