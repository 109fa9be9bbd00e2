"""What a system fixes before it starts: batch sizes, where attention runs, what GPU memory holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trimoe.cost import CostModel
from trimoe.cost.layer_ops import ELEMENT_BYTES, kv_bytes
from trimoe.errors import InputError

__all__ = [
    "Deployment",
    "Workload",
    "check_fits",
    "gpu_ledger",
    "gpu_or_cpu",
    "gpu_room",
    "host_ledger",
    "spare_slots",
    "with_slots",
]

# Of GPU memory, for the allocator, kernels' scratch and fragments.
_RESERVE = 0.06


@dataclass(frozen=True)
class Workload:
    """Requests of one length, that are all there at the beginning.

    batch: requests. input, output: tokens of each.
    """

    batch: int
    input: int
    output: int

    def __post_init__(self) -> None:
        if min(self.batch, self.input, self.output) < 1 or max(vars(self).values()) > 2**24:
            raise InputError(
                expected="batch, input and output of 1 to 16,777,216",
                got=f"{self.batch}, {self.input}, {self.output}",
                hint="--batch 64 --input-tokens 512 --output-tokens 128",
            )


@dataclass(frozen=True)
class Deployment:
    """How a system runs one phase ("prefill" or "decode") of a workload.

    batch: requests that go through a layer before the next layer begins. micro_batch: of them, requests that
    attention (and, unless coalesced, the experts) take at once. coalesced: experts see the whole batch.
    qkv, attention, out: "cpu" or "gpu" for the projections, attention itself (also "ndp": on the DIMMs) and
    what follows it. kv_on_gpu, dense_on_gpu: shares of the KV cache, and of all weights but routed experts,
    that GPU memory holds; the rest lies in host memory and is streamed where the GPU needs it.
    expert_slots: routed experts that GPU memory holds in every MoE layer; slots_of: where layers differ, one
    number for each. expert_fetches: of a layer's others, how many every step fetches, where that is fixed.
    stream_ahead: fetches of a layer begin before its routing, while earlier layers compute.
    pipelined: micro-batches overlap each other's transfers, CPU and GPU work.
    attention_on_cpu: with attention on the GPU, the share of the requests whose attention the CPU computes
    meanwhile, beside their part of the cache in host memory; at most 1 - kv_on_gpu.
    """

    batch: int
    micro_batch: int
    coalesced: bool = True
    qkv: str = "gpu"
    attention: str = "gpu"
    out: str = "gpu"
    kv_on_gpu: float = 1.0
    dense_on_gpu: float = 1.0
    expert_slots: int = 0
    slots_of: tuple[int, ...] = ()
    expert_fetches: int = 0
    stream_ahead: bool = False
    pipelined: bool = True
    attention_on_cpu: float = 0.0

    @property
    def micro_batches(self) -> int:
        """That a batch is cut into."""
        return -(-self.batch // self.micro_batch)

    def slots(self, moe_layer: int) -> int:
        """Experts that GPU memory holds in the i-th MoE layer."""
        return self.slots_of[moe_layer] if self.slots_of else self.expert_slots


def gpu_or_cpu(cost: CostModel, deployment: Deployment) -> Deployment:
    """The deployment itself; on a machine without a GPU, with the CPU and host memory in its place."""
    if cost.profile.gpu:
        return deployment
    changes: dict[str, Any] = {"kv_on_gpu": 0.0, "dense_on_gpu": 0.0, "stream_ahead": False}
    changes |= {one: "cpu" for one in ("qkv", "attention", "out") if getattr(deployment, one) == "gpu"}
    return replace(deployment, **changes)


def gpu_ledger(cost: CostModel, deployment: Deployment, work: Workload, phase: str) -> Mapping[str, float]:
    """Bytes of GPU memory by use."""
    shape, moe = cost.shape, cost.shape.moe
    context = work.input + work.output
    tokens_each = work.input if phase == "prefill" else 1
    dense = ELEMENT_BYTES * _gpu_dense_elements(cost, deployment)
    per_layer = dense / moe.layers
    # Keys and values in host memory pass through, two micro-batches of one layer at a time.
    at_once = min(deployment.batch, deployment.micro_batch)
    streamed_kv = (1 - deployment.kv_on_gpu) * (deployment.attention == "gpu")
    slots = [deployment.slots(index) for index in range(len(moe.moe_layers))]
    # What is computed on at once: projections of a micro-batch, two streamed experts' (or layers') buffers.
    width = 4 * moe.hidden + shape.attention.heads * shape.attention.qk_dim + shape.topk * 2 * moe.inter
    held = deployment.batch * tokens_each * moe.hidden if deployment.coalesced else 0
    streams = 2 * moe.experts - 2 * min(slots, default=0) if deployment.stream_ahead else 4
    all_there = min(slots, default=0) >= moe.experts
    return {
        "dense weights": deployment.dense_on_gpu * dense
        + (2 * per_layer if deployment.dense_on_gpu < 1 else 0),
        "KV cache": deployment.kv_on_gpu * kv_bytes(shape, deployment.batch, context),
        "KV buffers": 2 * streamed_kv * kv_bytes(shape, at_once, context) / moe.layers,
        "activations": ELEMENT_BYTES * (at_once * tokens_each * width + held),
        "expert buffers": 0.0 if all_there else streams * cost.expert_bytes,
        "experts": float(sum(slots) * cost.expert_bytes),
        "reserve": _RESERVE * (cost.profile.gpu.memory_bytes if cost.profile.gpu else 0),
    }


def gpu_room(cost: CostModel, deployment: Deployment, work: Workload, phase: str) -> float:
    """Bytes of GPU memory that a deployment leaves free, below 0 where it does not fit; 0 without a GPU."""
    gpu = cost.profile.gpu
    return gpu.memory_bytes - sum(gpu_ledger(cost, deployment, work, phase).values()) if gpu else 0.0


def host_ledger(cost: CostModel, deployment: Deployment, work: Workload) -> Mapping[str, float]:
    """Bytes of host memory by use; copies of experts that the GPU has are kept there too."""
    moe, on_gpu = cost.shape.moe, deployment.dense_on_gpu * _gpu_dense_elements(cost, deployment)
    return {
        "experts": float(len(moe.moe_layers) * moe.experts * cost.expert_bytes),
        "dense weights": ELEMENT_BYTES * (cost.shape.rest_elements - on_gpu),
        "KV cache": (1 - deployment.kv_on_gpu)
        * kv_bytes(cost.shape, deployment.batch, work.input + work.output),
    }


def _gpu_dense_elements(cost: CostModel, deployment: Deployment) -> int:
    """Weights but routed experts that the GPU computes with; embeddings and the output always are."""
    shape, moe = cost.shape, cost.shape.moe
    here = shape.rest_elements
    if deployment.qkv != "gpu":
        here -= moe.layers * (shape.attention.q_elements + shape.attention.kv_elements)
    if deployment.out != "gpu":
        here -= moe.layers * shape.attention.out_elements + shape.dense_layers * shape.dense_elements
        here -= len(moe.moe_layers) * (shape.shared_elements + shape.router_elements)
    return here


def spare_slots(cost: CostModel, deployment: Deployment, work: Workload, phase: str) -> int:
    """Experts of every MoE layer that GPU memory has room for beside everything else.

    0 to E; -1 where not even everything else fits, or there is no GPU.
    """
    if cost.profile.gpu is None:
        return -1

    def fits(slots: int) -> bool:
        return gpu_room(cost, replace(deployment, expert_slots=slots, slots_of=()), work, phase) >= 0

    # Buffers for what is streamed shrink as slots grow, and nothing is streamed where all experts are there.
    experts = cost.shape.moe.experts
    return (
        experts if fits(experts) else bisect_left(range(experts), True, key=lambda slots: not fits(slots)) - 1
    )


def with_slots(cost: CostModel, deployment: Deployment, work: Workload, phase: str) -> Deployment:
    """The deployment with GPU memory filled with experts; InputError where the rest alone does not fit."""
    check_fits(cost, replace(deployment, expert_slots=0, slots_of=()), work, phase)
    return replace(deployment, expert_slots=max(0, spare_slots(cost, deployment, work, phase)), slots_of=())


def check_fits(cost: CostModel, deployment: Deployment, work: Workload, phase: str) -> None:
    """InputError where GPU or host memory is too small for a deployment."""
    memories = [("host", host_ledger(cost, deployment, work), cost.profile.memory.capacity_bytes)]
    if cost.profile.gpu is not None:
        memories.append(("GPU", gpu_ledger(cost, deployment, work, phase), cost.profile.gpu.memory_bytes))
    for name, ledger, capacity in memories:
        total = sum(ledger.values())
        if total > capacity:
            uses = ", ".join(f"{use} {count / 1e9:.1f}" for use, count in ledger.items() if count)
            raise InputError(
                expected=f"{phase} of {deployment.batch} requests of {cost.shape.name} within "
                f"{capacity / 1e9:.1f} GB of {name} memory of {cost.profile.name}",
                got=f"{total / 1e9:.1f} GB ({uses})",
                hint="a smaller batch, --weights int4, or another profile",
            )
