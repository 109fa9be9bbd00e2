// Packing of sources that are stored as the layer is: codes and scales move, bit for bit.
#pragma once

#include "packed/pack/encode.h"

namespace trimoe {

// Whether a source has the layer's codes, and scales that the layer's can take over.
bool can_keep_codes(const SourceView& view, const WeightFormat& weights);

// Packs one column tile of such a source. Throws Error for an fp8 or mxfp4 code or scale that is NaN.
void keep_codes(const SourceRows& source, const TileTarget& target);

}  // namespace trimoe
