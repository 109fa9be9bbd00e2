#include "cpu/onednn/matmul.h"

#include <map>

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

namespace trimoe::cpu::onednn {
namespace {

using dnnl::memory;

// oneDNN would open a parallel region of its own inside each of our threads.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = omp_get_max_threads();
};

struct Descriptors {
  memory::desc a, b, c;

  explicit Descriptors(const Product& p)
      : a({p.rows, p.k}, operand(p), memory::dims{p.k_stride, 1}),
        b({p.k, p.cols}, operand(p), memory::dims{1, p.k_stride}),
        c({p.rows, p.cols}, sum(p), memory::dims{p.c_stride, 1}) {}

  static memory::data_type operand(const Product& p) {
    using Type = memory::data_type;
    return p.operand == Operand::kF32 ? Type::f32 : p.operand == Operand::kBf16 ? Type::bf16 : Type::s8;
  }
  static memory::data_type sum(const Product& p) {
    return p.operand == Operand::kInt8 ? memory::data_type::s32 : memory::data_type::f32;
  }
};

// A primitive has scratch memory of its own, so each thread makes its own; oneDNN keeps the generated code.
struct Primitives {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Product, dnnl::matmul> matmuls;

  const dnnl::matmul& matmul(const Product& product, const Descriptors& d) {
    const auto found = matmuls.find(product);
    if (found != matmuls.end()) return found->second;
    return matmuls.try_emplace(product, dnnl::matmul::primitive_desc(engine, d.a, d.b, d.c)).first->second;
  }
};

}  // namespace

bool has_narrow_products() {
  // Without VNNI a sum of two products of codes is kept in 16 bits, where it may not fit.
  const int vnni = dnnl_cpu_isa_avx512_core_vnni;  // a set of bits
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & vnni) == vnni;
}

void multiply(const Product& product, const void* a, const void* b, void* c) {
  thread_local Primitives primitives;
  const OneThread alone;
  const Descriptors descriptors(product);
  const dnnl::engine& engine = primitives.engine;
  const memory to_read[] = {{descriptors.a, engine, const_cast<void*>(a)},
                            {descriptors.b, engine, const_cast<void*>(b)}};
  primitives.matmul(product, descriptors)
      .execute(primitives.stream, {{DNNL_ARG_SRC, to_read[0]},
                                   {DNNL_ARG_WEIGHTS, to_read[1]},
                                   {DNNL_ARG_DST, memory(descriptors.c, engine, c)}});
  primitives.stream.wait();
}

}  // namespace trimoe::cpu::onednn
