#include "cpu/onednn/kernels.h"

#include <algorithm>
#include <vector>

#include "cpu/onednn/matmul.h"
#include "cpu/ref/column.h"
#include "cpu/ref/kernels.h"

namespace trimoe::cpu::onednn {
namespace {

template <typename T>
struct Multiplied;
template <>
struct Multiplied<float> {
  static constexpr Operand kOperand = Operand::kF32;
  using Sum = float;
  static float from(float value) { return value; }
};
template <>
struct Multiplied<Bf16> {
  static constexpr Operand kOperand = Operand::kBf16;
  using Sum = float;
  static Bf16 from(float value) { return from_f32<Bf16>(value); }
};
template <>
struct Multiplied<int8_t> {
  static constexpr Operand kOperand = Operand::kInt8;
  using Sum = int32_t;
  static int8_t from(float value) { return static_cast<int8_t>(value); }
};

// Sizes of one call.
template <Format kFormat>
struct Sizes {
  int64_t k_padded, group_k, cols;
  explicit Sizes(const GemmArgs& args)
      : k_padded(args.k_tiles * k_per_tile(kFormat)),
        group_k(args.group_lines * k_per_line(kFormat)),
        cols(args.panels * kPanelCols) {}
};

// Operands of one call: rows of A and columns of B, k contiguous. Kept by the thread.
template <typename T>
struct Operands {
  std::vector<T> a, b;
  std::vector<typename Multiplied<T>::Sum> c;

  static Operands& of_this_thread() {
    thread_local Operands instance;
    return instance;
  }

  // a_at(row, k) and b_at(column, k) are fp32 that T holds.
  template <typename AAt, typename BAt>
  void fill(int64_t rows, int64_t cols, int64_t k_padded, const AAt& a_at, const BAt& b_at) {
    a.resize(static_cast<size_t>(rows * k_padded));
    b.resize(static_cast<size_t>(cols * k_padded));
    c.resize(static_cast<size_t>(rows * cols));
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = 0; k < k_padded; ++k)
        a[static_cast<size_t>(row * k_padded + k)] = Multiplied<T>::from(a_at(row, k));
    for (int64_t column = 0; column < cols; ++column)
      for (int64_t k = 0; k < k_padded; ++k)
        b[static_cast<size_t>(column * k_padded + k)] = Multiplied<T>::from(b_at(column, k));
  }
};

// Rows in fp32: scales are multiplied into the weights, which T must hold.
template <Format kFormat, typename T>
void gemm(const GemmArgs& args) {
  const Sizes<kFormat> sizes(args);
  auto& operands = Operands<T>::of_this_thread();
  operands.fill(
      args.rows, sizes.cols, sizes.k_padded,
      [&](int64_t row, int64_t k) { return reinterpret_cast<const float*>(args.a + row * args.a_stride)[k]; },
      [&](int64_t column, int64_t k) {
        const ref::Column<kFormat> weights(args, column);
        return weights.value(k) * weights.scale(k / sizes.group_k);
      });
  multiply({Multiplied<T>::kOperand, args.rows, sizes.cols, sizes.k_padded, sizes.k_padded, args.c_stride},
           operands.a.data(), operands.b.data(), args.c);
}

// Rows of codes: one product for each group of k, then the scales.
template <Format kFormat, typename T>
void quantized_gemm(const GemmArgs& args) {
  const Sizes<kFormat> sizes(args);
  const int64_t k_padded = sizes.k_padded, cols = sizes.cols;
  const auto codes = [&](int64_t row) {
    return reinterpret_cast<const int16_t*>(args.a + row * args.a_stride);
  };
  auto& operands = Operands<T>::of_this_thread();
  operands.fill(
      args.rows, cols, k_padded, [&](int64_t row, int64_t k) { return static_cast<float>(codes(row)[k]); },
      [&](int64_t column, int64_t k) { return ref::Column<kFormat>(args, column).value(k); });
  for (int row = 0; row < args.rows; ++row) std::fill_n(args.c + row * args.c_stride, cols, 0.0f);
  for (int64_t group = 0, k = 0; k < k_padded; ++group, k += sizes.group_k) {
    const int64_t depth = std::min(sizes.group_k, k_padded - k);
    multiply({Multiplied<T>::kOperand, args.rows, cols, depth, k_padded, cols}, operands.a.data() + k,
             operands.b.data() + k, operands.c.data());
    for (int row = 0; row < args.rows; ++row) {
      const float row_scale = *reinterpret_cast<const float*>(codes(row) + k_padded);
      for (int64_t column = 0; column < cols; ++column)
        args.c[row * args.c_stride + column] +=
            static_cast<float>(operands.c[static_cast<size_t>(row * cols + column)]) *
            ref::Column<kFormat>(args, column).scale(group) * row_scale;
    }
  }
}

// The entry of ref with another gemm.
template <const Kernel& kRef, void (*kNarrow)(const GemmArgs&), void (*kWide)(const GemmArgs&)>
const Kernel* with_matmul() {
  static const Kernel kernel = [] {
    Kernel k = kRef;
    k.gemm = has_narrow_products() ? kNarrow : kWide;
    return k;
  }();
  return &kernel;
}

template <const Kernel& kRef, Format kFormat>
const Kernel* in_f32() {
  return with_matmul<kRef, gemm<kFormat, float>, gemm<kFormat, float>>();
}

template <const Kernel& kRef, Format kFormat>
const Kernel* in_codes() {
  return with_matmul<kRef, quantized_gemm<kFormat, int8_t>, quantized_gemm<kFormat, float>>();
}

}  // namespace

KernelSet kernels() {
  return {in_f32<ref::f32, Format::kF32>(),
          with_matmul<ref::bf16, gemm<Format::kBf16, Bf16>, gemm<Format::kBf16, float>>(),
          in_codes<ref::int8, Format::kInt8>(),
          in_codes<ref::int4, Format::kInt4>(),
          in_f32<ref::int4_a16, Format::kInt4>(),
          in_f32<ref::fp8, Format::kFp8>(),
          in_f32<ref::mxfp4, Format::kMxfp4>()};
}

}  // namespace trimoe::cpu::onednn
