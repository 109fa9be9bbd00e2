#include "ndp/dram/traffic.h"

#include <string>

#include "common/names.h"

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

// How many values a part has.
int base_of(Part part, const DramGeometry& geometry, int ranks) {
  if (part == &Place::rank) return ranks;
  if (part == &Place::group) return geometry.bank_groups;
  if (part == &Place::bank) return geometry.banks_per_group;
  return part == &Place::row ? geometry.rows : geometry.bursts_per_row;
}

}  // namespace

Pattern pattern_named(std::string_view name) {
  return static_cast<Pattern>(index_of(kPatternNames, name, "a pattern"));
}

Traffic::Traffic(const DramSpec& spec, int ranks, Pattern pattern, uint64_t seed)
    : is_random_(pattern == Pattern::kRandom || pattern == Pattern::kRandomSingleBank), random_(seed) {
  for (const Part part : kOrders[static_cast<size_t>(pattern)])
    if (part != nullptr) digits_.push_back({part, base_of(part, spec.geometry, ranks)});
}

Place Traffic::next() {
  const Place place = place_;
  if (is_random_) {
    Place drawn;
    for (const auto& [part, base] : digits_) drawn.*part = random_.below(base);
    return drawn;
  }
  for (const auto& [part, base] : digits_) {
    if (++(place_.*part) < base) break;
    place_.*part = 0;
  }
  return place;
}

}  // namespace trimoe::ndp
