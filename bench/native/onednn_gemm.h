// The baseline of avx_gemm where there is oneDNN: its matmul, with weights in the layout it asks for.
#pragma once

namespace trimoe::bench {

void register_onednn_gemms();

}  // namespace trimoe::bench
