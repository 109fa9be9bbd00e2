// torch.ops.trimoe.moe_forward, CPU: checks the tensors, then calls the executor. Links no Python.
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/op/torch_pool.h"
#include "bindings/op/torch_tensor.h"
#include "common/memory.h"
#include "cpu/dispatch/kernel_table.h"
#include "runtime/failure.h"
#include "runtime/forward.h"

namespace trimoe {
namespace {

constexpr uint64_t kBuiltAgainst = 0x020b000000000000;  // the ABI of torch 2.11, our oldest

DType float_type(const Tensor& tensor, const char* expected) {
  static const int32_t f32 = aoti_torch_dtype_float32(), bf16 = aoti_torch_dtype_bfloat16(),
                       f16 = aoti_torch_dtype_float16();
  check(
      tensor.dtype() == f32 || tensor.dtype() == bf16 || tensor.dtype() == f16, expected,
      [&] { return dtype_name(tensor.dtype()); }, "tensor.to(torch.bfloat16)");
  return tensor.dtype() == f32 ? DType::kF32 : tensor.dtype() == bf16 ? DType::kBf16 : DType::kF16;
}

std::vector<int32_t> plan_of(const Tensor& plan, int64_t experts) {
  check(
      plan.dim() == 1 && plan.size(0) == experts && plan.dtype() == aoti_torch_dtype_int32(),
      "plan of shape [E] and int32", [&] { return plan.shape() + " of " + dtype_name(plan.dtype()); },
      "torch.zeros(E, dtype=torch.int32)");
  const auto* data = static_cast<const int32_t*>(plan.data(sizeof(int32_t)));
  std::vector<int32_t> codes(static_cast<size_t>(experts));
  for (int64_t e = 0; e < experts; ++e) codes[static_cast<size_t>(e)] = data[e * plan.stride(0)];
  return codes;
}

cpu::RouterOutput router_of(const Tensor& ids, const Tensor& weights, int64_t tokens) {
  static const int32_t int32 = aoti_torch_dtype_int32(), int64 = aoti_torch_dtype_int64();
  check(
      ids.dim() == 2 && ids.size(0) == tokens, "topk_ids of shape [T, K]", [&] { return ids.shape(); },
      "one row per token");
  check(
      ids.dtype() == int32 || ids.dtype() == int64, "topk_ids of int32 or int64",
      [&] { return dtype_name(ids.dtype()); }, "topk_ids.long()");
  check(
      weights.dim() == 2 && weights.size(0) == tokens && weights.size(1) == ids.size(1),
      "topk_weights of the shape of topk_ids", [&] { return weights.shape(); }, "one weight per id");
  const DType weights_dtype = float_type(weights, "topk_weights of fp32, bf16 or fp16");
  cpu::check_pairs(tokens, ids.size(1));
  const bool is_int64 = ids.dtype() == int64;
  return {ids.data(is_int64 ? 8 : 4),
          is_int64,
          ids.stride(0),
          ids.stride(1),
          weights.data(size_of(weights_dtype)),
          weights_dtype,
          weights.stride(0),
          weights.stride(1),
          ids.size(1)};
}

TensorHandle empty_result(int64_t tokens, int64_t hidden, const Tensor& like, int64_t element_bytes) {
  const int64_t sizes[] = {tokens, hidden}, strides[] = {hidden, 1};
  AtenTensorHandle created = nullptr;
  if (aoti_torch_empty_strided(2, sizes, strides, like.dtype(), aoti_torch_device_type_cpu(), 0, &created))
    throw NoMemory(static_cast<size_t>(tokens * hidden * element_bytes));
  return TensorHandle(created);
}

TensorHandle moe_forward_cpu(const Tensor& hidden, const Tensor& ids, const Tensor& weights, int64_t handle,
                             const Tensor* plan) {
  const runtime::OpenLayer layer = runtime::find_layer(handle);
  const LayerShape& shape = layer.packed->shape();
  check(
      hidden.dim() == 2 && hidden.size(1) == shape.hidden, "hidden of shape [T, H]",
      [&] { return hidden.shape(); }, "hidden.reshape(-1, H) with the H of the layer");
  const DType dtype = float_type(hidden, "hidden of bf16, fp16 or fp32");
  const int64_t tokens = hidden.size(0);
  const cpu::RouterOutput router = router_of(ids, weights, tokens);
  const std::vector<int32_t> codes = plan ? plan_of(*plan, shape.experts) : std::vector<int32_t>();
  TensorHandle out = empty_result(tokens, shape.hidden, hidden, size_of(dtype));
  runtime::Call call{{hidden.data(size_of(dtype)), dtype, hidden.stride(0), hidden.stride(1), shape.hidden},
                     router,
                     tokens,
                     nullptr,
                     codes};
  ok(aoti_torch_get_data_ptr(out.get(), &call.out), "get_data_ptr");
  runtime::forward(layer, cpu::selected_entry().kernel(shape.weights.format, shape.int8_activations),
                   TorchPool(), call);
  return out;
}

TensorHandle take(StableIValue value) { return TensorHandle(reinterpret_cast<AtenTensorHandle>(value)); }

// An optional argument is null or a heap cell that the callee frees.
TensorHandle take_optional(StableIValue value) {
  const std::unique_ptr<StableIValue> cell(reinterpret_cast<StableIValue*>(value));
  return cell ? take(*cell) : nullptr;
}

void moe_forward_boxed(StableIValue* stack, uint64_t, uint64_t) {
  // All references are ours from here on, whatever throws below.
  const TensorHandle hidden = take(stack[0]), ids = take(stack[1]), weights = take(stack[2]);
  const TensorHandle plan = take_optional(stack[4]);
  std::optional<Tensor> plan_tensor;
  if (plan) plan_tensor.emplace(plan, "plan");
  try {
    TensorHandle out =
        moe_forward_cpu(Tensor(hidden, "hidden"), Tensor(ids, "topk_ids"), Tensor(weights, "topk_weights"),
                        static_cast<int64_t>(stack[3]), plan_tensor ? &*plan_tensor : nullptr);
    stack[0] = reinterpret_cast<StableIValue>(out.release());
  } catch (...) {
    runtime::tell_failure(std::current_exception());
    throw;
  }
}

// Runs while the library is loaded, where an exception would end the process: after a failure the op
// is simply not there, and the loader says so. The library objects live as long as the process, as
// torch keeps pointers into this library.
const bool registered = []() noexcept {
  TorchLibraryHandle definitions = nullptr, cpu_kernels = nullptr;
  const char* schema =
      "moe_forward(Tensor hidden, Tensor topk_ids, Tensor topk_weights, int layer, Tensor? plan=None) -> "
      "Tensor";
  return aoti_torch_library_init_def("trimoe", __FILE__, __LINE__, &definitions) == 0 &&
         aoti_torch_library_def(definitions, schema) == 0 &&
         aoti_torch_library_init_impl("trimoe", "CPU", __FILE__, __LINE__, &cpu_kernels) == 0 &&
         torch_library_impl(cpu_kernels, "moe_forward", &moe_forward_boxed, kBuiltAgainst) == 0;
}();

}  // namespace
}  // namespace trimoe
