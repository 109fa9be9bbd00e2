"""The deployment of systems that put a batch through the model at once, with attention on the GPU.

GPU memory holds the dense weights first, then the KV cache as far as it goes, then experts. Prompts go in
rounds of as many requests as a number of tokens allows; each round goes through all layers. Without a GPU the
CPU and host memory take its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimoe.cost import CostModel
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, gpu_or_cpu, gpu_room
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.requirements import need

__all__ = ["OnePassOptions", "one_pass"]


@dataclass(frozen=True)
class OnePassOptions(Options):
    """Common options of these systems."""

    kv: str = option(
        "auto",
        "KV cache: all in GPU memory, all in host memory, or as much on the GPU as fits",
        choices=("auto", "gpu", "host"),
    )
    prefill_tokens: int = option(
        32768, "prompt tokens at once; fewer where they do not fit", low=1, high=2**24
    )


def one_pass(
    cost: CostModel,
    work: Workload,
    phase: str,
    options: OnePassOptions,
    *,
    experts: int | None = None,
    stream_ahead: bool = False,
) -> Deployment:
    """The whole batch at decode; at prefill, rounds.

    experts: routed experts of every MoE layer in GPU memory; None: as many as fit, and where the room is no
    multiple of the layers, one more in the first of them. InputError where it does not fit.
    """
    requests = work.batch
    if phase == "prefill":
        requests = max(1, min(work.batch, options.prefill_tokens // work.input))
    layers = len(cost.shape.moe.moe_layers)
    given = (experts or 0) * layers * cost.expert_bytes
    while True:
        # The KV cache of all requests is there, however few of them are computed at once.
        whole = Deployment(
            work.batch,
            requests,
            coalesced=False,
            kv_on_gpu=0.0,
            stream_ahead=stream_ahead,
            pipelined=False,
        )
        whole = gpu_or_cpu(cost, whole)
        room = gpu_room(cost, whole, work, phase) - given
        if room >= 0 or requests == 1:
            break
        requests = -(-requests // 2)
    whole = replace(whole, expert_slots=experts or 0)
    whole = replace(whole, kv_on_gpu=_kv_share(cost, whole, work, phase, options.kv))
    check_fits(cost, whole, work, phase)
    if experts is None:
        whole = replace(
            whole, slots_of=_slots(cost, int(gpu_room(cost, whole, work, phase) // cost.expert_bytes))
        )
    return replace(whole, batch=requests)


def _kv_share(cost: CostModel, whole: Deployment, work: Workload, phase: str, kv: str) -> float:
    """Of the KV cache, what GPU memory holds beside all else; what it takes there grows evenly with it."""
    need(cost, "kv=gpu", gpu=kv == "gpu")
    if kv != "auto" or not cost.profile.gpu:
        return float(kv == "gpu")
    none, all_there = (gpu_room(cost, replace(whole, kv_on_gpu=share), work, phase) for share in (0.0, 1.0))
    if all_there >= 0:
        return 1.0
    return max(0.0, none / (none - all_there)) * (1 - 1e-9)


def _slots(cost: CostModel, total: int) -> tuple[int, ...]:
    moe = cost.shape.moe
    layers = len(moe.moe_layers)
    each, over = divmod(min(max(0, total), layers * moe.experts), layers)
    return (each + 1,) * over + (each,) * (layers - over)
