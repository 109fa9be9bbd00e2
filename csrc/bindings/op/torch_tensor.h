// A tensor as the op sees it, through torch's stable ABI.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "bindings/op/torch_abi.h"
#include "common/error.h"

namespace trimoe {

inline void ok(AOTITorchError error, const char* call) {
  check<Failure>(error == 0, "torch to accept a call", [&] { return std::string(call) + " failed"; });
}

struct DeleteTensor {
  void operator()(AtenTensorOpaque* handle) const { aoti_torch_delete_tensor_object(handle); }
};
using TensorHandle = std::unique_ptr<AtenTensorOpaque, DeleteTensor>;  // owns one reference

// torch's own name of a dtype; the ABI has none.
inline std::string dtype_name(int32_t dtype) {
  static const std::pair<int32_t, const char*> kNames[] = {
      {aoti_torch_dtype_bfloat16(), "bfloat16"},
      {aoti_torch_dtype_bool(), "bool"},
      {aoti_torch_dtype_complex128(), "complex128"},
      {aoti_torch_dtype_complex32(), "complex32"},
      {aoti_torch_dtype_complex64(), "complex64"},
      {aoti_torch_dtype_float16(), "float16"},
      {aoti_torch_dtype_float32(), "float32"},
      {aoti_torch_dtype_float64(), "float64"},
      {aoti_torch_dtype_float8_e4m3fn(), "float8_e4m3fn"},
      {aoti_torch_dtype_float8_e4m3fnuz(), "float8_e4m3fnuz"},
      {aoti_torch_dtype_float8_e5m2(), "float8_e5m2"},
      {aoti_torch_dtype_float8_e5m2fnuz(), "float8_e5m2fnuz"},
      {aoti_torch_dtype_int16(), "int16"},
      {aoti_torch_dtype_int32(), "int32"},
      {aoti_torch_dtype_int64(), "int64"},
      {aoti_torch_dtype_int8(), "int8"},
      {aoti_torch_dtype_uint16(), "uint16"},
      {aoti_torch_dtype_uint32(), "uint32"},
      {aoti_torch_dtype_uint64(), "uint64"},
      {aoti_torch_dtype_uint8(), "uint8"},
  };
  for (const auto& [number, name] : kNames)
    if (number == dtype) return name;
  return "a dtype that is none of a tensor of numbers";
}

// What the core needs to know of a tensor on the CPU; borrows the reference.
class Tensor {
 public:
  // name: of the argument, for errors.
  Tensor(const TensorHandle& handle, const char* name) : name_(name) {
    bool is_defined = false;
    ok(aoti_torch_is_defined(handle.get(), &is_defined), "is_defined");
    if (!is_defined) throw Error(std::string(name) + " as a tensor", "None", "a tensor on the CPU");
    ok(aoti_torch_get_dim(handle.get(), &dim_), "get_dim");
    ok(aoti_torch_get_sizes(handle.get(), &sizes_), "get_sizes");
    ok(aoti_torch_get_strides(handle.get(), &strides_), "get_strides");
    ok(aoti_torch_get_dtype(handle.get(), &dtype_), "get_dtype");
    ok(aoti_torch_get_data_ptr(handle.get(), &data_), "get_data_ptr");
    ok(aoti_torch_get_storage_offset(handle.get(), &offset_), "get_storage_offset");
    ok(aoti_torch_get_storage_size(handle.get(), &storage_bytes_), "get_storage_size");
  }

  int64_t dim() const { return dim_; }
  int64_t size(int d) const { return sizes_[d]; }
  int64_t stride(int d) const { return strides_[d]; }
  int32_t dtype() const { return dtype_; }

  std::string shape() const {
    std::string text = "[";
    for (int d = 0; d < dim_; ++d) text += (d ? ", " : "") + std::to_string(size(d));
    return text + "]";
  }

  // Where the elements lie, `element_bytes` each. A tensor may say more than its storage holds: FSDP, for
  // one, takes the storage away and leaves the tensor.
  void* data(int64_t element_bytes) const {
    check(
        is_held(element_bytes), "tensors whose storage holds all their elements",
        [&] { return std::string(name_) + " with " + std::to_string(storage_bytes_) + " bytes"; },
        "a tensor that was not resized or freed");
    check(reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(element_bytes) == 0,
          "tensors aligned to their elements", name_, "tensor.clone()");
    return data_;
  }

 private:
  bool is_held(int64_t element_bytes) const {
    int64_t last = offset_, bytes = 0;  // the last element; where it ends
    for (int d = 0; d < dim_; ++d) {
      if (sizes_[d] == 0) return true;
      int64_t step = 0;
      if (__builtin_mul_overflow(sizes_[d] - 1, strides_[d], &step) ||
          __builtin_add_overflow(last, step, &last))
        return false;
    }
    return !__builtin_mul_overflow(last, element_bytes, &bytes) && bytes <= storage_bytes_ - element_bytes;
  }

  const char* name_;
  int64_t dim_ = 0, offset_ = 0, storage_bytes_ = 0;
  int64_t *sizes_ = nullptr, *strides_ = nullptr;
  int32_t dtype_ = 0;
  void* data_ = nullptr;
};

}  // namespace trimoe
