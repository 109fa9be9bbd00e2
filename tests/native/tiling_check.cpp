// Prints what csrc/cpu/ffn/tiling.h chooses for layers of real models: tests/cpu/test_tiling.py has the
// lines.
//
// Kernels are described here, and none is called: the same lines on any machine.
#include <array>
#include <cstdio>
#include <string>

#include "cpu/ffn/tiling.h"

namespace trimoe::test {
namespace {

// topk: of the model. The rest is what a kernel says of itself: here of the entries "amx" and "avx512".
struct Case {
  const char* name;
  int64_t hidden, inter, experts, topk;
  WeightFormat weights;
  RowType a;
  int few_rows;
  bool blocks_k;
};

constexpr std::array kCases = {
    Case{"deepseek-v2 bf16 on amx", 5120, 1536, 160, 6, Format::kBf16, RowType::kBf16, 4, true},
    Case{"deepseek-v2 int8 on amx", 5120, 1536, 160, 6, Format::kInt8, RowType::kInt8, 4, true},
    Case{"gpt-oss-120b mxfp4 on amx", 2880, 2880, 128, 4, Format::kMxfp4, RowType::kBf16, 4, true},
    Case{"mixtral-8x7b bf16 on avx512", 4096, 14336, 8, 2, Format::kBf16, RowType::kBf16, 6, false},
    Case{"tiny int8 on avx512", 64, 32, 8, 2, Format::kInt8, RowType::kInt8, 6, false},
};

constexpr std::array kChunks = {
    cpu::ChunkSize{.tokens = 1, .experts = 6, .workers = 2, .nodes = 1},
    cpu::ChunkSize{.tokens = 32, .experts = 8, .workers = 16, .nodes = 1},
    cpu::ChunkSize{.tokens = 512, .experts = 8, .workers = 64, .nodes = 1},
    cpu::ChunkSize{.tokens = 512, .experts = 8, .workers = 64, .nodes = 3},
};
constexpr std::array<int64_t, 4> kRows = {4, 5, 100, cpu::kWalkRows};
constexpr int64_t kPanels = 24;

void print(const Case& one) {
  LayerShape shape;
  shape.hidden = one.hidden;
  shape.inter = one.inter;
  shape.experts = one.experts;
  shape.weights = one.weights;
  shape.activation.gated = true;
  Kernel kernel{};
  kernel.a = one.a;
  kernel.h = DType::kBf16;
  kernel.max_rows = kMaxRows;
  kernel.few_rows = one.few_rows;
  kernel.blocks_k = one.blocks_k;
  int64_t serial_rows = 0;
  while (cpu::is_serial(shape, serial_rows + 1)) ++serial_rows;
  const auto text = [](auto number) { return std::to_string(number); };
  std::string lines = std::string(one.name) + ": tokens_of_chunk " +
                      text(cpu::tokens_of_chunk(shape, one.topk)) + ", serial_rows " + text(serial_rows) +
                      '\n';
  for (const cpu::ChunkSize& chunk : kChunks)
    lines += "  tokens " + text(chunk.tokens) + ", workers " + text(chunk.workers) + ", nodes " +
             text(chunk.nodes) + ": " + to_string(cpu::tiling_for(shape, kernel, chunk)) + '\n';
  const int64_t stride = cpu::row_stride(row_bytes(kernel.a, row_shape(shape.gate_up(), shape.weights)));
  for (const int64_t rows : kRows)
    lines += "  rows " + text(rows) + ": " +
             to_string(cpu::walk_tiling(kernel, shape.gate_up(), rows, stride, kPanels)) + '\n';
  std::fputs(lines.c_str(), stdout);
}

}  // namespace
}  // namespace trimoe::test

int main() {
  for (const auto& one : trimoe::test::kCases) trimoe::test::print(one);
  return 0;
}
