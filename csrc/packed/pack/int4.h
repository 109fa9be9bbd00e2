// The scale search of the int4 packing.
#pragma once

#include "packed/pack/lanes.h"

namespace trimoe {

// Scales that bf16 holds, by which codes from -8 to 7 leave the least squared error of all that are tried. A
// scale may be negative: the larger side of a column then gets the longer arm. 0 for a column of zeros.
void search_int4_scales(GroupValues values, int64_t group, float (&scales)[kTileCols]);

}  // namespace trimoe
