#include "common/names.h"
#include "ndp/dram/spec.h"

namespace trimoe::ndp {
namespace {

// 16 Gb x8 dies, four to a sub-channel: rows of 4 KiB, bursts of 64 bytes.
constexpr DramGeometry kDies16GbX8{
    .bank_groups = 8, .banks_per_group = 4, .rows = 65536, .bursts_per_row = 64, .burst_bytes = 64};

// From the currents of Micron's 16 Gb DDR5-4800 x8 (IDD, IPP; VDD 1.1 V, VPP 1.8 V), one of 32 banks active.
constexpr DramEnergy kEnergy16GbX8{
    .read_nj = 3.49, .write_nj = 3.90, .activate_nj = 2.46, .refresh_nj = 287.0};

// Core timings from the nanoseconds of the datasheet as floor(0.997 * t / tCK + 1), refresh timings rounded
// up; docs/ndp.md says what is recalled.
constexpr DramSpec kSpecs[] = {
    {"4800B",
     0.416,
     kDies16GbX8,
     {.nBL = 8,
      .nCL = 40,
      .nRCD = 39,
      .nRP = 39,
      .nRAS = 77,
      .nRC = 116,
      .nCWL = 38,
      .nWR = 72,
      .nRTP = 18,
      .nCCD_S = 8,
      .nCCD_L = 12,
      .nCCD_L_WR = 48,
      .nRRD_S = 8,
      .nRRD_L = 12,
      .nFAW = 32,
      .nWTR_S = 6,
      .nWTR_L = 24,
      .nPPD = 2,
      .nRFC1 = 710,
      .nRFC2 = 385,
      .nRFCsb = 313,
      .nREFSBRD = 73,
      .nREFI = 9375,
      .nXP = 18,
      .nRTRS = 2},
     kEnergy16GbX8,
     "Micron DDR5 core datasheet, speed bin 4800B (40-39-39)"},
    {"5600B",
     0.357,
     kDies16GbX8,
     {.nBL = 8,
      .nCL = 46,
      .nRCD = 45,
      .nRP = 45,
      .nRAS = 90,
      .nRC = 135,
      .nCWL = 44,
      .nWR = 84,
      .nRTP = 21,
      .nCCD_S = 8,
      .nCCD_L = 14,
      .nCCD_L_WR = 56,
      .nRRD_S = 8,
      .nRRD_L = 14,
      .nFAW = 32,
      .nWTR_S = 7,
      .nWTR_L = 28,
      .nPPD = 2,
      .nRFC1 = 827,
      .nRFC2 = 449,
      .nRFCsb = 365,
      .nREFSBRD = 85,
      .nREFI = 10925,
      .nXP = 21,
      .nRTRS = 2},
     kEnergy16GbX8,  // of 4800B: to be checked
     "the same rules at tCK 0.357 ns; speed bin 5600B (46-45-45) as recalled, to be checked"},
};

}  // namespace

std::span<const DramSpec> dram_specs() { return kSpecs; }

const DramSpec& dram_spec(std::string_view name) {
  return kSpecs[index_of(kSpecs, name, "a DRAM speed grade", &DramSpec::name)];
}

}  // namespace trimoe::ndp
