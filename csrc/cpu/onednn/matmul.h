// One matrix product by oneDNN, on the calling thread alone.
#pragma once

#include <compare>
#include <cstdint>

namespace trimoe::cpu::onednn {

// Of the operands. Sums are fp32, of 8-bit codes int32.
enum class Operand { kF32, kBf16, kInt8 };

// C[rows, cols] = A[rows, k] * B[k, cols]. The k of a row of A are contiguous and those of a column of B;
// strides are in elements.
struct Product {
  Operand operand;
  int64_t rows, cols, k;
  int64_t k_stride;  // from row to row of A, and from column to column of B
  int64_t c_stride;

  auto operator<=>(const Product&) const = default;
};

// Whether oneDNN multiplies bf16 and 8-bit codes on this processor, and the codes exactly; elsewhere it has
// to be given fp32.
bool has_narrow_products();

// Throws dnnl::error where oneDNN fails.
void multiply(const Product& product, const void* a, const void* b, void* c);

}  // namespace trimoe::cpu::onednn
