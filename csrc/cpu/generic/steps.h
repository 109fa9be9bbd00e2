// What a line of packed weights means to a vector instruction set, per format; see gemm.h for the
// members. I supplies the vectors: Vec (floats), Int (the same bits as integers) and their operations.
#pragma once

#include <cstring>

#include "cpu/kernel/decode.h"

namespace trimoe::cpu {
namespace {

inline int32_t dword_at(const void* from) {
  int32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// --- Scales: of one vector of columns -----------------------------------------------------------

template <class I>
struct Unscaled {
  static constexpr bool kGrouped = false;  // whether sums end with a group of k
  using Sum = typename I::Vec;
  static Sum start(const std::byte*, int64_t) { return I::zero(); }
  static typename I::Vec scale(const std::byte*, int64_t, int, int) { return I::zero(); }
  static Sum finish(Sum sum, typename I::Vec, const std::byte*) { return sum; }
};

// Float products, scaled at the end of each group.
template <class I, Format kFormat>
struct Scaled : Unscaled<I> {
  static constexpr bool kGrouped = true;
  using Vec = typename I::Vec;
  static Vec scale(const std::byte* scales, int64_t group, int tile, int part) {
    return load_scale<I, kFormat>(scales, group, tile, part);
  }
  static Vec finish(Vec sum, Vec scale, const std::byte*) { return I::mul(sum, scale); }
};

// Integer products of quantised rows: the row's scale and offsets lie behind its codes.
template <class I, Format kFormat>
struct Quantized {
  static constexpr bool kGrouped = kFormat != Format::kInt8;
  using Vec = typename I::Vec;
  using Sum = typename I::Int;
  static Sum start(const std::byte* row, int64_t group) { return I::set_int(dword_at(row + 4 + 4 * group)); }
  static Vec scale(const std::byte* scales, int64_t group, int tile, int part) {
    return load_scale<I, kFormat>(scales, group, tile, part);
  }
  static Vec finish(Sum sum, Vec scale, const std::byte* row) {
    float row_scale;
    std::memcpy(&row_scale, row, sizeof row_scale);
    return I::mul(I::mul(I::to_float(sum), scale), I::set(row_scale));
  }
};

// --- Floats -------------------------------------------------------------------------------------

template <class I>
struct F32Step : Unscaled<I> {
  using A = float;
  using Codes = typename I::Vec;
  using Weights = typename I::Vec;
  static constexpr int kPerLine = 1, kSubs = 1, kWeightRegisters = 1;
  static Codes load(const std::byte* from) { return I::load(reinterpret_cast<const float*>(from)); }
  template <int>
  static Weights decode(Codes codes) {
    return codes;
  }
  template <int, int kVecs>
  static void multiply_add(const float* a, const Weights (&w)[kVecs], typename I::Vec (&c)[kVecs]) {
    const auto x = I::set(*a);
    for (int i = 0; i < kVecs; ++i) c[i] = I::fma(x, w[i], c[i]);
  }
};

// Pairs of bf16 widened to fp32 and multiplied by FMA: exact products.
template <class I>
struct Pair {
  typename I::Vec even, odd;
  explicit Pair(typename I::Int words)
      : even(I::as_float(I::template shift_left32<16>(words))),
        odd(I::as_float(I::and_int(words, I::set_int(static_cast<int>(0xffff0000u))))) {}
  Pair() = default;
};

template <class I, int kSub, int kVecs>
void multiply_add_pairs(const float* a, const Pair<I> (&w)[kVecs], typename I::Vec (&c)[kVecs]) {
  const auto even = I::set(a[2 * kSub]), odd = I::set(a[2 * kSub + 1]);
  for (int i = 0; i < kVecs; ++i) c[i] = I::fma(even, w[i].even, c[i]);
  for (int i = 0; i < kVecs; ++i) c[i] = I::fma(odd, w[i].odd, c[i]);
}

template <class I>
struct Bf16Step : Unscaled<I> {
  using A = float;
  using Codes = typename I::Int;
  using Weights = Pair<I>;
  static constexpr int kPerLine = 2, kSubs = 1, kWeightRegisters = 2;
  static Codes load(const std::byte* from) { return I::load_int(from); }
  template <int>
  static Weights decode(Codes codes) {
    return Weights(codes);
  }
  template <int kSub, int kVecs>
  static void multiply_add(const float* a, const Weights (&w)[kVecs], typename I::Vec (&c)[kVecs]) {
    multiply_add_pairs<I, kSub, kVecs>(a, w, c);
  }
};

template <class I>
struct Fp8Step : Scaled<I, Format::kFp8> {
  using A = float;
  using Codes = typename I::Int;
  using Weights = Pair<I>;
  static constexpr int kPerLine = 4, kSubs = 2, kWeightRegisters = 3;
  static Codes load(const std::byte* from) { return I::load_int(from); }
  template <int kSub>
  static Weights decode(Codes codes) {
    return Weights(I::bf16_of_e4m3(upper_bytes<I, kSub>(codes)));
  }
  template <int kSub, int kVecs>
  static void multiply_add(const float* a, const Weights (&w)[kVecs], typename I::Vec (&c)[kVecs]) {
    multiply_add_pairs<I, kSub, kVecs>(a, w, c);
  }
};

// One k at a time: the nibble at 4 * kSub of each dword, by table.
template <class I, Format kFormat>
struct FourBitStep : Scaled<I, kFormat> {
  using A = float;
  using Codes = typename I::Int;
  using Weights = typename I::Vec;
  static constexpr int kPerLine = 8, kSubs = 8, kWeightRegisters = 2;
  static constexpr int kK[] = {0, 4, 2, 6, 1, 5, 3, 7};  // of each nibble, lowest first
  static Codes load(const std::byte* from) { return I::load_int(from); }
  template <int kSub>
  static Weights decode(Codes codes) {
    const auto nibble = I::template shift_right32<4 * kSub>(codes);
    if constexpr (kFormat == Format::kInt4)
      return I::float_of_int4(nibble);
    else
      return I::float_of_e2m1(nibble);
  }
  template <int kSub, int kVecs>
  static void multiply_add(const float* a, const Weights (&w)[kVecs], typename I::Vec (&c)[kVecs]) {
    const auto x = I::set(a[kK[kSub]]);
    for (int i = 0; i < kVecs; ++i) c[i] = I::fma(x, w[i], c[i]);
  }
};

// --- Integers -----------------------------------------------------------------------------------

// Four products at once by dot-product instructions on bytes (VNNI).
template <class I, Format kFormat>
struct DotStep : Quantized<I, kFormat> {
  using A = int8_t;
  using Codes = typename I::Int;
  using Weights = typename I::Int;
  static constexpr int kPerLine = static_cast<int>(k_per_line(kFormat)), kSubs = kPerLine / 4;
  static constexpr int kWeightRegisters = kSubs;
  static Codes load(const std::byte* from) { return I::load_int(from); }
  template <int kSub>
  static Weights decode(Codes codes) {
    return code_bytes<I, kFormat, kSub>(codes);
  }
  template <int kSub, int kVecs>
  static void multiply_add(const int8_t* a, const Weights (&w)[kVecs], typename I::Int (&c)[kVecs]) {
    const auto x = I::set_int(dword_at(a + 4 * kSub));
    for (int i = 0; i < kVecs; ++i) c[i] = I::dot_bytes(c[i], w[i], x);
  }
};

// Two products at once on words: even bytes of a line are a pair of k, odd bytes the next.
template <class I, Format kFormat>
struct MaddStep : Quantized<I, kFormat> {
  using A = int16_t;
  using Codes = typename I::Int;
  struct Weights {
    typename I::Int even, odd;
  };
  static constexpr int kPerLine = static_cast<int>(k_per_line(kFormat)), kSubs = kPerLine / 4;
  static constexpr int kWeightRegisters = kSubs + 1;
  static Codes load(const std::byte* from) { return I::load_int(from); }
  template <int kSub>
  static Weights decode(Codes codes) {
    const auto bytes = code_bytes<I, kFormat, kSub>(codes);
    return {I::and_int(bytes, I::set_int(0x00ff00ff)), I::template shift_right16<8>(bytes)};
  }
  template <int kSub, int kVecs>
  static void multiply_add(const int16_t* a, const Weights (&w)[kVecs], typename I::Int (&c)[kVecs]) {
    const auto even = I::set_int(dword_at(a + 4 * kSub)), odd = I::set_int(dword_at(a + 4 * kSub + 2));
    for (int i = 0; i < kVecs; ++i) c[i] = I::add_int(c[i], I::madd_words(even, w[i].even));
    for (int i = 0; i < kVecs; ++i) c[i] = I::add_int(c[i], I::madd_words(odd, w[i].odd));
  }
};

}  // namespace
}  // namespace trimoe::cpu
