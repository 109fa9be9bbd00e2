#include "ndp/dram/traffic.h"

#include <string>

#include "common/error.h"

namespace trimoe::ndp {
namespace {

using Part = int Place::*;

// The parts of an address that count up, or are drawn, the fastest first; the others stay 0.
constexpr Part kOrders[][5] = {
    {&Place::group, &Place::rank, &Place::burst, &Place::bank, &Place::row},  // stream: every row to its end
    {&Place::rank, &Place::group, &Place::bank, &Place::row, &Place::burst},  // random
    {&Place::row, &Place::burst},                                             // random-single-bank
    {&Place::burst, &Place::bank, &Place::row},                               // single-bank-group
    {&Place::burst, &Place::group, &Place::rank, &Place::bank, &Place::row},  // row-major
};
static_assert(std::size(kOrders) == std::size(kPatternNames));

bool is_random(Pattern pattern) {
  return pattern == Pattern::kRandom || pattern == Pattern::kRandomSingleBank;
}

// How many values a part has.
int base_of(Part part, const DramGeometry& geometry, int ranks) {
  if (part == &Place::rank) return ranks;
  if (part == &Place::group) return geometry.bank_groups;
  if (part == &Place::bank) return geometry.banks_per_group;
  return part == &Place::row ? geometry.rows : geometry.bursts_per_row;
}

}  // namespace

Pattern pattern_named(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < std::size(kPatternNames); ++i) {
    if (kPatternNames[i] == name) return static_cast<Pattern>(i);
    known.append(i ? ", " : "").append(kPatternNames[i]);
  }
  throw Error("a pattern out of " + known, std::string(name), "stream");
}

Place Traffic::next() {
  int64_t rest = index_++;
  Place place;
  for (const auto part : kOrders[static_cast<size_t>(pattern_)]) {
    if (part == nullptr) break;
    const int base = base_of(part, geometry_, ranks_);
    if (is_random(pattern_)) {
      place.*part = random_.below(base);
    } else {
      place.*part = static_cast<int>(rest % base);
      rest /= base;
    }
  }
  return place;
}

}  // namespace trimoe::ndp
