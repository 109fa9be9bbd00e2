// Element types of tensors and packed weights; conversions are in convert.h.
#pragma once

#include <cstdint>

namespace trimoe {

enum class DType : int32_t { kF32 = 0, kBf16 = 1, kF16 = 2 };

constexpr int64_t size_of(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

constexpr const char* name_of(DType dtype) {
  return dtype == DType::kF32 ? "fp32" : dtype == DType::kBf16 ? "bf16" : "fp16";
}

struct Bf16 {
  uint16_t bits;
};

struct F16 {
  uint16_t bits;
};

}  // namespace trimoe
