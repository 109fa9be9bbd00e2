// The table entry "onednn": the rows, activations and sums of "ref" around matrix products by oneDNN. It is
// there to be compared with, so it unpacks the weights anew for every call; built with TRIMOE_ONEDNN only.
#pragma once

#include "cpu/dispatch/kernel_table.h"

namespace trimoe::cpu::onednn {

KernelSet kernels();

}  // namespace trimoe::cpu::onednn
