"""The sizes of a model: of its routed experts, of its attention, and of all the rest."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Attention", "ModelShape", "MoeShape"]


@dataclass(frozen=True)
class MoeShape:
    """The shape of the routed experts of a model.

    Attributes:
        model_type: what config.json calls the architecture.
        layers: number of layers, dense ones included.
        moe_layers: indices of the layers with routed experts.
        hidden: H, the width of the experts' input and output.
        inter: I, the width inside an expert.
        experts: E, routed experts of a layer.
        topk: K, experts per token; None where config.json does not say.
        shared_experts: experts that run for every token, in addition.
        activation: "silu", "gelu", "gelu_tanh", "relu2", "swiglu_oai" (gpt-oss) or config.json's own name for
            another one; None where it names none.
        gated: whether an expert computes act(gate) * up, and not act(up).
        has_bias: whether the experts have biases.
        dtype: safetensors name of the experts' element type, "MXFP4", or the packed format of a folder that
            `trimoe pack` wrote; None where config.json does not say.
    """

    model_type: str
    layers: int
    moe_layers: tuple[int, ...]
    hidden: int
    inter: int
    experts: int
    topk: int | None
    shared_experts: int
    activation: str | None
    gated: bool
    has_bias: bool
    dtype: str | None


@dataclass(frozen=True)
class Attention:
    """One layer's attention: "gqa" (heads that share keys and values) or "mla" (a latent in their place).

    heads, kv_heads: of queries; of keys and values. qk_dim, v_dim: of one head, rotary part included.
    q_rank, kv_rank: of the latents, 0 without; rope_dim: the part of the MLA cache that all heads share.
    window: of the sliding window, 0 for none; window_layers: that have one.
    """

    kind: str
    hidden: int
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    q_rank: int = 0
    kv_rank: int = 0
    rope_dim: int = 0
    window: int = 0
    window_layers: int = 0

    @property
    def q_elements(self) -> int:
        """Weights that make queries of hidden states."""
        out = self.heads * self.qk_dim
        return self.hidden * self.q_rank + self.q_rank * out if self.q_rank else self.hidden * out

    @property
    def kv_elements(self) -> int:
        """Weights that make keys and values."""
        if self.kind == "gqa":
            return self.hidden * self.kv_heads * (self.qk_dim + self.v_dim)
        up = self.heads * (self.qk_dim - self.rope_dim + self.v_dim)
        return self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank * up

    @property
    def out_elements(self) -> int:
        """Weights of the output projection."""
        return self.heads * self.v_dim * self.hidden

    @property
    def weight_elements(self) -> int:
        """All weights of the four projections."""
        return self.q_elements + self.kv_elements + self.out_elements

    @property
    def cache_elements(self) -> int:
        """Numbers that one token leaves in the KV cache of one layer."""
        if self.kind == "mla":
            return self.kv_rank + self.rope_dim
        return self.kv_heads * (self.qk_dim + self.v_dim)

    def pair_flops(self, absorbed: bool = False) -> int:
        """Operations for one query and one key: score and weighted sum of all heads.

        absorbed: MLA on the latents themselves, as one decodes.
        """
        if absorbed and self.kind == "mla":
            return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)
        return 2 * self.heads * (self.qk_dim + self.v_dim)


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes; counts are of weights, whatever their format.

    name: as asked for. moe: of its routed experts. dense_inter: of the layers without experts; shared_inter:
    of all shared experts of a layer together. tied: embedding and output share their weights.
    """

    name: str
    source: str
    moe: MoeShape
    attention: Attention
    vocabulary: int
    dense_inter: int
    shared_inter: int
    tied: bool

    @property
    def topk(self) -> int:
        """Experts of a token."""
        return self.moe.topk or 1

    @property
    def dense_layers(self) -> int:
        """Layers without routed experts."""
        return self.moe.layers - len(self.moe.moe_layers)

    @property
    def expert_elements(self) -> int:
        """Weights of one routed expert."""
        return (3 if self.moe.gated else 2) * self.moe.hidden * self.moe.inter

    @property
    def shared_elements(self) -> int:
        """Weights of a layer's shared experts together."""
        return 3 * self.moe.hidden * self.shared_inter

    @property
    def dense_elements(self) -> int:
        """Weights of the MLP of a layer without routed experts."""
        return 3 * self.moe.hidden * self.dense_inter

    @property
    def router_elements(self) -> int:
        """Weights of one router."""
        return self.moe.hidden * self.moe.experts

    @property
    def rest_elements(self) -> int:
        """All weights but the routed experts': what a GPU would hold first."""
        moe_layers = len(self.moe.moe_layers)
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.moe.hidden
        per_moe_layer = self.shared_elements + self.router_elements
        dense = self.dense_layers * self.dense_elements
        return (
            embeddings + self.moe.layers * self.attention.weight_elements + moe_layers * per_moe_layer + dense
        )
