// What a DDR5 speed grade is: data only. A grade is added by adding a row to specs.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace trimoe::ndp {

// Clocks of the DRAM clock, named as in JESD79-5 with n for "number of clocks". nRTRS, the gap between
// two ranks on one bus, is a convention and no part of the standard.
struct DramTiming {
  int nBL, nCL, nRCD, nRP, nRAS, nRC, nCWL, nWR, nRTP;
  int nCCD_S, nCCD_L, nCCD_L_WR, nRRD_S, nRRD_L, nFAW, nWTR_S, nWTR_L, nPPD;
  int nRFC1, nRFC2, nRFCsb, nREFSBRD, nREFI, nXP, nRTRS;
};

// One 32-bit sub-channel of one rank.
struct DramGeometry {
  int bank_groups, banks_per_group;
  int rows;
  int bursts_per_row;
  int burst_bytes;

  constexpr int banks() const { return bank_groups * banks_per_group; }
  constexpr int64_t row_bytes() const { return int64_t{bursts_per_row} * burst_bytes; }
};

// Nanojoules of one rank of one sub-channel: a burst, a row opened and closed, a refresh of all banks.
struct DramEnergy {
  double read_nj, write_nj, activate_nj, refresh_nj;
};

struct DramSpec {
  std::string_view name;
  double clock_ns;
  DramGeometry geometry;
  DramTiming timing;
  DramEnergy energy;
  std::string_view source;

  constexpr double peak_gbps() const { return geometry.burst_bytes / (timing.nBL * clock_ns); }
};

std::span<const DramSpec> dram_specs();

// Throws Error for a name that no row has.
const DramSpec& dram_spec(std::string_view name);

}  // namespace trimoe::ndp
