#include "ndp/dimm/faults.h"

namespace trimoe::ndp {
namespace {

double uniform(Random& random) { return static_cast<double>(random.next() >> 11) * 0x1p-53; }

}  // namespace

FaultEvent Faults::next() {
  const auto planned = planned_.find(commands_++);
  const double draw = uniform(random_), at = uniform(random_);  // drawn always: plans do not shift the seed
  if (planned != planned_.end()) return planned->second;
  double below = 0;
  for (const auto& [fault, rate] :
       {std::pair{Fault::kCorrupt, rates_.corrupt}, std::pair{Fault::kTimeout, rates_.timeout},
        std::pair{Fault::kDeath, rates_.death}, std::pair{Fault::kEcc, rates_.ecc}}) {
    below += rate;
    if (draw < below) return {fault, at};
  }
  return {};
}

}  // namespace trimoe::ndp
