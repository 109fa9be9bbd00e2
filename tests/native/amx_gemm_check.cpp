// The tile gemms as they ship, in libtrimoe_core.so, against scalar loops, bit by bit.
//
//   amx_gemm_check [kernels]            tile instructions are emulated: the trap must be loaded
//   amx_gemm_check [kernels] --native   on a processor with AMX; exit code 77 where there is none
//
// [kernels]: what the names of the kernels to check begin with. Prints one line: the cases that were run, and
// the multiplies that the trap has executed.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string_view>

#include "amx/kernels.h"
#include "amx_reference.h"
#include "garbage.h"
#include "packed/layout.h"
#include "support.h"

namespace trimoe::test {
namespace {

struct Gemm {
  const char* name;
  WeightFormat weights;
  RowType rows;
  void (*run)(const GemmArgs&);
};

constexpr Gemm kGemms[] = {
    {"bf16", Format::kBf16, RowType::kBf16, amx::gemm_bf16},
    {"int8", Format::kInt8, RowType::kInt8, amx::gemm_int8},
    {"int4-a8-32", {Format::kInt4, 32}, RowType::kInt8, amx::gemm_int4},
    {"int4-a8-64", {Format::kInt4, 64}, RowType::kInt8, amx::gemm_int4},
    {"int4-a8-128", {Format::kInt4, 128}, RowType::kInt8, amx::gemm_int4},
    {"int4-a16-32", {Format::kInt4, 32}, RowType::kBf16, amx::gemm_int4_a16},
    {"int4-a16-64", {Format::kInt4, 64}, RowType::kBf16, amx::gemm_int4_a16},
    {"int4-a16-128", {Format::kInt4, 128}, RowType::kBf16, amx::gemm_int4_a16},
    {"fp8", Format::kFp8, RowType::kBf16, amx::gemm_fp8},
    {"mxfp4", Format::kMxfp4, RowType::kBf16, amx::gemm_mxfp4},
};

struct Shape {
  int rows, k_tiles, panels;
  int a_slack, c_slack;  // unused bytes behind a row of A, columns behind a row of C
};

enum Values { kOrdinary, kAnyBits, kTiny };
constexpr Values kAllValues[] = {kOrdinary, kAnyBits, kTiny};

class Random {
 public:
  explicit Random(uint32_t seed, Values values) : bits_(seed), values_(values) {}

  uint16_t bf16() { return static_cast<uint16_t>(f32() >> 16); }

  uint32_t f32() {
    const uint32_t bits = next(), pick = next();
    if (values_ == kAnyBits) return bits;
    // 2^-4 to 2^3, or factors whose products are around the smallest normal number, some subnormal.
    const uint32_t exponent = values_ == kOrdinary ? 123 + pick % 8 : pick % 3 ? 62 + pick / 3 % 4 : 0;
    return (bits & 0x807fffffu) | exponent << 23;
  }

  uint8_t e4m3() {
    const auto code = byte();
    return (code & 0x7f) == 0x7f ? 0x3f : code;  // NaN, which packing refuses
  }

  uint8_t e8m0() {
    return values_ == kAnyBits ? byte() : static_cast<uint8_t>((values_ == kTiny ? 60 : 122) + byte() % 10);
  }

  uint8_t byte() { return static_cast<uint8_t>(next()); }

 private:
  uint32_t next() { return static_cast<uint32_t>(bits_()); }

  std::mt19937 bits_;
  Values values_;
};

template <typename T>
void fill(std::byte* at, int64_t bytes, const auto& draw) {
  for (int64_t i = 0; i < bytes; i += static_cast<int64_t>(sizeof(T))) {
    const T value = draw();
    std::memcpy(at + i, &value, sizeof value);
  }
}

void fill_panel(const Gemm& gemm, const PackedMatrix& matrix, std::byte* panel, Random& random) {
  const Format format = gemm.weights.format;
  const int64_t codes = matrix.scales_offset();
  if (format == Format::kBf16) return fill<uint16_t>(panel, codes, [&] { return random.bf16(); });
  fill<uint8_t>(panel, codes, [&] { return format == Format::kFp8 ? random.e4m3() : random.byte(); });
  std::byte* scales = panel + codes;
  if (format == Format::kInt4)
    return fill<uint16_t>(scales, matrix.scale_bytes, [&] { return random.bf16(); });
  if (format == Format::kMxfp4)
    return fill<uint8_t>(scales, matrix.scale_bytes, [&] { return random.e8m0(); });
  fill<uint32_t>(scales, matrix.scale_bytes, [&] { return random.f32(); });
}

void fill_row(const Gemm& gemm, const PackedMatrix& matrix, std::byte* row, Random& random) {
  const int64_t depth = matrix.k_padded;
  if (gemm.rows == RowType::kBf16) return fill<uint16_t>(row, 2 * depth, [&] { return random.bf16(); });
  fill<uint8_t>(row, depth, [&] { return random.byte(); });
  fill<uint32_t>(row + depth, 4, [&] { return random.f32(); });
  const int64_t group_k = matrix.group_lines * k_per_line(gemm.weights.format);
  for (int64_t group = 0; group < matrix.groups; ++group) {
    int32_t sum = 0;
    for (int64_t k = group * group_k; k < depth && k < (group + 1) * group_k; ++k)
      sum += static_cast<int8_t>(row[k]);  // the swapped order stays within the group
    const int32_t offset = -facts(gemm.weights.format).zero * sum;
    std::memcpy(row + depth + 4 + 4 * group, &offset, 4);
  }
}

bool same(float x, float y) {
  return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y) || (std::isnan(x) && std::isnan(y));
}

void check(const Gemm& gemm, const Shape& shape, Values values, uint32_t seed, Complaints& complaints) {
  Random random(seed, values);
  const Format format = gemm.weights.format;
  const PackedMatrix matrix(gemm.weights, shape.panels, shape.k_tiles * k_per_tile(format));
  const int64_t a_bytes = row_bytes(gemm.rows, {matrix.k_padded, matrix.groups, 0, 0});
  const int64_t a_stride = a_bytes + shape.a_slack, c_stride = shape.panels * kPanelCols + shape.c_slack;
  // A kernel may touch rows up to a whole tile, but not one more.
  const int64_t touched_rows = round_up(shape.rows, 16);
  const int64_t c_count = (touched_rows - 1) * c_stride + shape.panels * kPanelCols;
  const GuardedBuffer a(static_cast<size_t>((touched_rows - 1) * a_stride + a_bytes));
  const GuardedBuffer w(static_cast<size_t>(matrix.bytes()));
  const GuardedBuffer c(static_cast<size_t>(c_count * 4)), expected(static_cast<size_t>(c_count * 4));
  for (int64_t row = 0; row < touched_rows; ++row) fill_row(gemm, matrix, a.data() + row * a_stride, random);
  for (int64_t panel = 0; panel < shape.panels; ++panel)
    fill_panel(gemm, matrix, w.data() + panel * matrix.panel_bytes(), random);
  for (int64_t i = 0; i < c_count; ++i) c.as<float>()[i] = expected.as<float>()[i] = -12345.0f;

  GemmArgs args = gemm_on(matrix);
  args.a = a.data();
  args.a_stride = a_stride;
  args.rows = shape.rows;
  args.w = w.data();
  args.panels = shape.panels;
  args.c_stride = c_stride;
  // Fetching ahead must not leave the memory that it is told of.
  const GuardedBuffer ahead(static_cast<size_t>(2 * kWindowBytes + seed % 5 * 4096)),
      then(static_cast<size_t>(kWindowBytes));
  FetchCursor next;
  if (seed % 3)
    next = FetchCursor({ahead.data(), ahead.data() + 2 * kWindowBytes + seed % 5 * 4096},
                       seed % 3 == 1 ? MemoryRange{then.data(), then.data() + kWindowBytes} : MemoryRange{});
  args.next = &next;
  args.c = expected.as<float>();
  (gemm.rows == RowType::kInt8 ? reference_int8 : reference_bf16)(format, args);
  args.c = c.as<float>();
  // All of k at once, or so many whole groups at a time.
  const int64_t step = seed % 4 < 2 ? matrix.k_tiles : matrix.unit_tiles * (seed % 4 - 1);
  for (args.k_begin = 0; args.k_begin < matrix.k_tiles; args.k_begin += step) {
    args.k_end = std::min(args.k_begin + step, matrix.k_tiles);
    fill_stack_with_garbage();
    gemm.run(args);
  }

  int64_t wrong = 0;
  const int64_t owned = (shape.rows - 1) * c_stride + shape.panels * kPanelCols;
  for (int64_t i = 0; i < c_count; ++i)
    wrong += (i < owned || i % c_stride >= shape.panels * kPanelCols) &&
             !same(c.as<float>()[i], expected.as<float>()[i]);
  if (wrong)
    complaints.add("%s, %d rows, %d k tiles, %d panels, values %d: %ld of %ld differ", gemm.name, shape.rows,
                   shape.k_tiles, shape.panels, values, static_cast<long>(wrong), static_cast<long>(c_count));
}

int check_gemm(const Gemm& gemm, Complaints& complaints) {
  uint32_t seed = 0;
  const auto run = [&](const Shape& shape, Values values) {
    if (complaints.count() < Complaints::kShown) check(gemm, shape, values, ++seed, complaints);
  };
  for (const Values values : kAllValues) {
    for (const int k_tiles : {1, 2, 3, 5, 5, 5, 5}) run({17, k_tiles, 1, 64, 16}, values);
    for (int panels = 2; panels <= kMaxPanels; ++panels) run({11 * panels, 3, panels, 64, 32}, values);
  }
  for (int rows = 1; rows <= 33; ++rows) run({rows, 2, 1, 0, 0}, kAllValues[rows % 3]);
  for (const int rows : {47, 64, 65, 127, 128}) run({rows, 3, 1, 0, 0}, kOrdinary);
  return static_cast<int>(seed);
}

}  // namespace
}  // namespace trimoe::test

int main(int argc, char** argv) {
  using namespace trimoe;
  const bool native = argc > 1 && std::strcmp(argv[argc - 1], "--native") == 0;
  const std::string_view wanted = argc > (native ? 2 : 1) ? argv[1] : "";
  if (native && !test::permitted()) return 77;
  test::Complaints complaints;
  int cases = 0;
  test::fill_stack_with_garbage();
  amx::enter();
  for (const auto& gemm : test::kGemms)
    if (std::string_view(gemm.name).starts_with(wanted)) cases += test::check_gemm(gemm, complaints);
  amx::leave();
  const auto counters = test::trap_counters();
  std::printf("%d cases, %d failed, %lu bf16 and %lu int8 multiplies emulated\n", cases, complaints.count(),
              counters.multiplies_bf16, counters.multiplies_int8);
  return complaints.count() ? 1 : 0;
}
