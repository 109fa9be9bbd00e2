// The layers that are open in this process: the op's `layer` argument is a handle of this one table.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/domain_code.h"
#include "packed/layer.h"
#include "runtime/domain.h"
#include "runtime/policy.h"
#include "runtime/record.h"

namespace trimoe::runtime {

// Who besides the CPU runs experts of a layer, who decides, and who wants to know. Never changed: replaced.
struct Wiring {
  struct Attached {
    std::shared_ptr<Domain> domain;
    std::vector<int32_t> codes;
  };
  std::vector<Attached> domains;  // in the order in which their sums are added: by their lowest code
  std::vector<int16_t> by_code;   // from the lowest code on: which of them, or -1
  std::shared_ptr<Policy> policy;
  std::shared_ptr<Recorder> recorder;

  // Which of the domains, or -1.
  int find(int32_t code) const {
    const int64_t at = int64_t{code} - kSplitDomain;
    return at >= 0 && at < std::ssize(by_code) ? by_code[static_cast<size_t>(at)] : -1;
  }
  bool is_empty() const { return domains.empty() && !policy && !recorder; }
  // The codes that a plan may use, for people.
  std::string codes() const;
};

struct OpenLayer {
  int64_t handle = 0;
  std::shared_ptr<Layer> packed;
  std::shared_ptr<const Wiring> wiring;  // null: the CPU alone
};

// Handles are positive and never used again; their low bits count the layers of a process.
inline constexpr int kHandleCountBits = 24;
int64_t register_layer(std::shared_ptr<Layer> layer);
// Calls that run go on; the domains are let go of with the last. Nothing for a layer that is closed.
void unregister_layer(int64_t handle);

// These throw Error for a handle of no open layer.
OpenLayer find_layer(int64_t handle);
// Throws Error for a code that the layer has a domain for.
void attach(int64_t handle, std::vector<int32_t> codes, std::shared_ptr<Domain> domain);
void set_policy(int64_t handle, std::shared_ptr<Policy> policy);  // null: none
void set_recorder(int64_t handle, std::shared_ptr<Recorder> recorder);

// The domain that has the code; all of them. A call under way still has it. Nothing for a layer that is
// closed.
void detach(int64_t handle, int32_t code);
void detach_all(int64_t handle);

}  // namespace trimoe::runtime
