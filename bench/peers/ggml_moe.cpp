// One layer's experts as a ggml graph, built as llama.cpp builds them: two mul_mat_id, swiglu, mul_mat_id,
// router weights, a sum over the K experts. A C interface for ctypes.
#include <cstdint>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

struct Layer {
  ggml_tensor* parts[3];  // gate [E, I, H], up [E, I, H], down [E, H, I]
};

struct Graph {
  ggml_cgraph* graph;
  ggml_tensor *hidden, *ids, *weights, *out;
};

struct Moe {
  int64_t experts, hidden, inter, topk;
  ggml_backend_t backend;
  ggml_backend_buffer_type_t buffer_type;
  std::vector<Layer> layers;
  std::map<std::pair<int64_t, int64_t>, Graph> graphs;  // by layer and tokens
};

// The buffer type that repacks weights for this processor; it exists for 4-bit blocks.
ggml_backend_buffer_type_t repacking_buffer_type(ggml_backend_t backend) {
  ggml_backend_dev_t device = ggml_backend_get_device(backend);
  const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
      ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  if (extra == nullptr) return nullptr;
  for (auto* type = extra(device); type != nullptr && *type != nullptr; ++type)
    if (std::strstr(ggml_backend_buft_name(*type), "REPACK") != nullptr) return *type;
  return nullptr;
}

ggml_context* tensors_without_memory(size_t count, size_t extra_bytes) {
  ggml_init_params params{ggml_tensor_overhead() * count + extra_bytes, nullptr, true};
  return ggml_init(params);
}

Graph build_graph(const Moe& moe, const Layer& layer, int64_t tokens) {
  ggml_context* ctx = tensors_without_memory(256, ggml_graph_overhead());
  Graph g{};
  g.hidden = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, moe.hidden, tokens);
  g.ids = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, moe.topk, tokens);
  g.weights = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 1, moe.topk, tokens);
  for (ggml_tensor* input : {g.hidden, g.ids, g.weights}) ggml_set_input(input);
  ggml_tensor* rows = ggml_reshape_3d(ctx, g.hidden, moe.hidden, 1, tokens);
  ggml_tensor* gate = ggml_mul_mat_id(ctx, layer.parts[0], rows, g.ids);
  ggml_tensor* up = ggml_mul_mat_id(ctx, layer.parts[1], rows, g.ids);
  ggml_tensor* each = ggml_mul_mat_id(ctx, layer.parts[2], ggml_swiglu_split(ctx, gate, up), g.ids);
  each = ggml_mul(ctx, each, g.weights);
  for (int64_t k = 0; k < moe.topk; ++k) {
    ggml_tensor* one = ggml_view_2d(ctx, each, moe.hidden, tokens, each->nb[2], k * each->nb[1]);
    g.out = k == 0 ? one : ggml_add(ctx, g.out, one);
  }
  if (moe.topk == 1) g.out = ggml_cont(ctx, g.out);
  ggml_set_output(g.out);
  g.graph = ggml_new_graph(ctx);
  ggml_build_forward_expand(g.graph, g.out);
  ggml_gallocr_alloc_graph(ggml_gallocr_new(ggml_backend_get_default_buffer_type(moe.backend)), g.graph);
  return g;
}

}  // namespace

extern "C" {

void* moe_create(int64_t experts, int64_t hidden, int64_t inter, int64_t topk, int64_t type, int64_t copies,
                 int64_t threads) {
  auto* moe = new Moe{experts, hidden, inter, topk, ggml_backend_cpu_init(), nullptr, {}, {}};
  ggml_backend_cpu_set_n_threads(moe->backend, static_cast<int>(threads));
  if (type == GGML_TYPE_Q4_0) moe->buffer_type = repacking_buffer_type(moe->backend);
  if (moe->buffer_type == nullptr) moe->buffer_type = ggml_backend_cpu_buffer_type();
  for (int64_t copy = 0; copy < copies; ++copy) {
    ggml_context* ctx = tensors_without_memory(8, 0);
    Layer layer{};
    for (int part = 0; part < 3; ++part) {
      const bool down = part == 2;
      layer.parts[part] = ggml_new_tensor_3d(ctx, static_cast<ggml_type>(type), down ? inter : hidden,
                                             down ? hidden : inter, experts);
    }
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, moe->buffer_type);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    moe->layers.push_back(layer);
  }
  return moe;
}

const char* moe_buffer_name(void* handle) {
  return ggml_backend_buft_name(static_cast<Moe*>(handle)->buffer_type);
}

int64_t moe_tensor_bytes(void* handle, int64_t part) {
  return static_cast<int64_t>(ggml_nbytes(static_cast<Moe*>(handle)->layers[0].parts[part]));
}

void moe_quantize(int64_t type, const float* values, void* out, int64_t rows, int64_t cols) {
  ggml_quantize_chunk(static_cast<ggml_type>(type), values, out, 0, rows, cols, nullptr);
}

void moe_set(void* handle, int64_t copy, int64_t part, const void* data) {
  ggml_tensor* tensor = static_cast<Moe*>(handle)->layers[static_cast<size_t>(copy)].parts[part];
  ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
}

// hidden [T, H] and out [T, H] fp32, ids [T, K] int32, weights [T, K] fp32; returns 0 or ggml's error.
int64_t moe_run(void* handle, int64_t copy, int64_t tokens, const float* hidden, const int32_t* ids,
                const float* weights, float* out) {
  auto& moe = *static_cast<Moe*>(handle);
  const auto key = std::make_pair(copy, tokens);
  if (!moe.graphs.contains(key))
    moe.graphs[key] = build_graph(moe, moe.layers[static_cast<size_t>(copy)], tokens);
  const Graph& g = moe.graphs[key];
  std::memcpy(g.hidden->data, hidden, ggml_nbytes(g.hidden));
  std::memcpy(g.ids->data, ids, ggml_nbytes(g.ids));
  std::memcpy(g.weights->data, weights, ggml_nbytes(g.weights));
  const ggml_status status = ggml_backend_graph_compute(moe.backend, g.graph);
  std::memcpy(out, g.out->data, ggml_nbytes(g.out));
  return status;
}

}  // extern "C"
