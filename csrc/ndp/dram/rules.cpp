#include "ndp/dram/rules.h"

namespace trimoe::ndp {

std::vector<Rule> rules_of(const DramTiming& t) {
  using enum Command;
  const int write_end = t.nCWL + t.nBL;  // of the data, from the command on
  const int read_to_write = t.nCL + t.nBL + 2 - t.nCWL;
  std::vector<Rule> rules = {
      // A row is opened, used, closed.
      {kActivate, kRead, Scope::kBank, t.nRCD},
      {kActivate, kWrite, Scope::kBank, t.nRCD},
      {kActivate, kPrecharge, Scope::kBank, t.nRAS},
      {kActivate, kActivate, Scope::kBank, t.nRC},
      {kRead, kPrecharge, Scope::kBank, t.nRTP},
      {kWrite, kPrecharge, Scope::kBank, write_end + t.nWR},
      {kPrecharge, kActivate, Scope::kBank, t.nRP},
      // Banks share what drives them.
      {kActivate, kActivate, Scope::kGroup, t.nRRD_L},
      {kActivate, kActivate, Scope::kRank, t.nRRD_S},
      {kPrecharge, kPrecharge, Scope::kRank, t.nPPD},
      // The data bus, within a bank group and within a rank.
      {kRead, kRead, Scope::kGroup, t.nCCD_L},
      {kRead, kRead, Scope::kRank, t.nCCD_S},
      {kWrite, kWrite, Scope::kGroup, t.nCCD_L_WR},
      {kWrite, kWrite, Scope::kRank, t.nCCD_S},
      {kRead, kWrite, Scope::kRank, read_to_write},
      {kWrite, kRead, Scope::kGroup, write_end + t.nWTR_L},
      {kWrite, kRead, Scope::kRank, write_end + t.nWTR_S},
      // The data bus, between ranks.
      {kRead, kRead, Scope::kOtherRank, t.nBL + t.nRTRS},
      {kWrite, kWrite, Scope::kOtherRank, t.nBL + t.nRTRS},
      {kRead, kWrite, Scope::kOtherRank, t.nCL + t.nBL + t.nRTRS - t.nCWL},
      {kWrite, kRead, Scope::kOtherRank, write_end + t.nRTRS - t.nCL},
      // All banks of a rank at once.
      {kActivate, kPrechargeAll, Scope::kRank, t.nRAS},
      {kRead, kPrechargeAll, Scope::kRank, t.nRTP},
      {kWrite, kPrechargeAll, Scope::kRank, write_end + t.nWR},
      {kPrecharge, kPrechargeAll, Scope::kRank, t.nPPD},
      {kPrechargeAll, kPrecharge, Scope::kRank, t.nPPD},
      {kPrechargeAll, kActivate, Scope::kRank, t.nRP},
      {kActivate, kRefresh, Scope::kRank, t.nRC},
      {kPrecharge, kRefresh, Scope::kRank, t.nRP},
      {kPrechargeAll, kRefresh, Scope::kRank, t.nRP},
      {kRefresh, kActivate, Scope::kRank, t.nRFC1},
      {kRefresh, kRefresh, Scope::kRank, t.nRFC1},
      {kRefresh, kPrecharge, Scope::kRank, t.nRFC1},
      {kRefresh, kPrechargeAll, Scope::kRank, t.nRFC1},
  };
  return rules;
}

}  // namespace trimoe::ndp
