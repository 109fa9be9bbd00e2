#include "onednn_gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "gemm_bench.h"

namespace trimoe::bench {
namespace {

using dnnl::memory;
using Type = memory::data_type;

struct Operands {
  const char* name;
  Variant variant;  // of ours that multiplies the same
  Type type, sum;
};

// All ones: what time it takes does not depend on the values.
memory ones(const memory::desc& desc, const dnnl::engine& engine, dnnl::stream& stream) {
  const memory wide({desc.get_dims(), Type::f32, memory::format_tag::ab}, engine);
  std::fill_n(static_cast<float*>(wide.get_data_handle()), desc.get_dims()[0] * desc.get_dims()[1], 1.0f);
  memory narrow(desc, engine);
  memory from = wide;
  dnnl::reorder(from, narrow).execute(stream, from, narrow);
  stream.wait();
  return narrow;
}

void run_matmul(benchmark::State& state, const Operands& operands, const GemmShape& shape, int64_t rows) {
  omp_set_num_threads(1);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const int64_t cols = shape.panels() * kPanelCols;
  const memory::desc a({rows, shape.k}, operands.type, memory::format_tag::ab);
  const memory::desc any({shape.k, cols}, operands.type, memory::format_tag::any);
  const memory::desc c({rows, cols}, operands.sum, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc chosen(engine, a, any, c);
  const dnnl::matmul matmul(chosen);
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, ones(a, engine, stream)},
      {DNNL_ARG_WEIGHTS, ones(chosen.weights_desc(), engine, stream)},
      {DNNL_ARG_DST, memory(c, engine)}};
  for (auto _ : state) {
    matmul.execute(stream, arguments);
    stream.wait();
  }
  const auto bytes = static_cast<double>(chosen.weights_desc().get_size());
  report(state, gemm_work(shape, rows, bytes), peak_gflops(operands.variant.weights, 1),
         &shape == &kGemmShapes[0] ? 0 : read_gbps(1));
  state.SetLabel(chosen.impl_info_str());
}

}  // namespace

void register_onednn_gemms() {
  static const Operands kAll[] = {{"onednn_fp32", variants()[0], Type::f32, Type::f32},
                                  {"onednn_bf16", variants()[1], Type::bf16, Type::f32},
                                  {"onednn_int8", variants()[2], Type::s8, Type::s32}};
  for (const Operands& operands : kAll)
    for (const GemmShape& shape : kGemmShapes)
      for (const int64_t rows : kGemmRows) {
        const std::string name =
            std::string(operands.name) + "/" + shape.name + "/rows:" + std::to_string(rows);
        benchmark::RegisterBenchmark(name.c_str(), run_matmul, std::ref(operands), std::ref(shape), rows)
            ->UseRealTime();
      }
}

}  // namespace trimoe::bench
