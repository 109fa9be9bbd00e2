#include "ndp/traffic.h"

#include <string>

#include "common/error.h"

namespace trimoe::ndp {

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
  // The next digit of the burst's number, in a base.
  const auto digit = [&rest](int base) {
    const auto value = static_cast<int>(rest % base);
    rest /= base;
    return value;
  };
  const DramGeometry& g = geometry_;
  Place place;
  switch (pattern_) {
    case Pattern::kStream:  // every burst in another bank group, then in another rank; every row to its end
      place.group = digit(g.bank_groups);
      place.rank = digit(ranks_);
      place.burst = digit(g.bursts_per_row);
      place.bank = digit(g.banks_per_group);
      place.row = digit(g.rows);
      break;
    case Pattern::kRowMajor:
      place.burst = digit(g.bursts_per_row);
      place.group = digit(g.bank_groups);
      place.rank = digit(ranks_);
      place.bank = digit(g.banks_per_group);
      place.row = digit(g.rows);
      break;
    case Pattern::kSingleBankGroup:
      place.burst = digit(g.bursts_per_row);
      place.bank = digit(g.banks_per_group);
      place.row = digit(g.rows);
      break;
    case Pattern::kRandom:
      place.rank = random_.below(ranks_);
      place.group = random_.below(g.bank_groups);
      place.bank = random_.below(g.banks_per_group);
      [[fallthrough]];
    case Pattern::kRandomSingleBank:
      place.row = random_.below(g.rows);
      place.burst = random_.below(g.bursts_per_row);
      break;
  }
  return place;
}

}  // namespace trimoe::ndp
