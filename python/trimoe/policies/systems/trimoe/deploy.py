"""How TriMoE deploys: prefill on the GPU alone, decode with the experts on three domains.

TriMoE (arXiv 2603.01058), section 4.1: attention, dense MLPs and shared experts have their weights in GPU
memory; the KV cache and all routed experts lie in host DIMMs, the hottest experts in GPU memory besides.
Without a GPU, of which the paper does not speak, the CPU does all but the experts, in both phases.
"""

from __future__ import annotations

from dataclasses import replace

from trimoe.cost import CostModel, schedule
from trimoe.errors import InputError
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, gpu_or_cpu, spare_slots
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.requirements import need

__all__ = ["deploy_decode", "deploy_prefill"]

# Cuts of a batch that decode's attention is compared over; transfers of one overlap another's work.
_MICRO_BATCHES = (1, 2, 4, 8)


def deploy_prefill(cost: CostModel, work: Workload, *, kv_on_gpu: float, tokens: int) -> Deployment:
    """All on the GPU, the experts of a layer streamed through it, ahead where two layers' buffers fit.

    As many requests at once as fit, for each goes through the same streamed experts. tokens: of a
    micro-batch. Without a GPU nothing is streamed. InputError where not even one request fits.
    """
    batch = work.batch
    while True:
        base = Deployment(batch, min(batch, max(1, tokens // work.input)), kv_on_gpu=kv_on_gpu)
        if not cost.profile.gpu:
            base = gpu_or_cpu(cost, base)
            check_fits(cost, base, work, "prefill")
            return base
        for ahead in (True, False):
            found = replace(base, stream_ahead=ahead)
            spare = spare_slots(cost, found, work, "prefill")
            if spare >= 0:
                found = replace(found, expert_slots=spare)
                check_fits(cost, found, work, "prefill")
                return found
        if batch == 1:
            check_fits(cost, base, work, "prefill")
        batch = -(-batch // 2)


def deploy_decode(
    cost: CostModel, work: Workload, *, attention: str, kv_on_gpu: float, slots: int
) -> Deployment:
    """The whole batch at once. attention: "gpu", "cpu", "ndp", or "auto" for the fastest of these.

    kv_on_gpu: share of the KV cache in GPU memory, -1: what fits beside the rest. slots: experts of each
    layer in GPU memory, -1: what fits. InputError where it does not fit.
    """
    has = {"gpu": cost.profile.gpu, "cpu": cost.profile.cpu, "ndp": cost.profile.ndp}
    places = tuple(one for one in has if has[one]) if attention == "auto" else (attention,)
    need(cost, f"attention={attention}", gpu="gpu" in places, ndp="ndp" in places)
    found: list[tuple[float, Deployment]] = []
    for place in places:
        for cut in _MICRO_BATCHES[: 1 if place != "gpu" else None]:
            one = gpu_or_cpu(cost, Deployment(work.batch, -(-work.batch // cut), attention=place))
            share = _kv_share(cost, one, work, kv_on_gpu) if place == "gpu" else 0.0
            one = replace(one, kv_on_gpu=share)
            tasks = LayerTasks(cost, one, 1).attention(work.input + work.output // 2, moe=True, first=0)
            found.append((schedule(tasks, len(cost.resources)).makespan_ns, one))
    best = min(found, key=lambda pair: pair[0])[1]
    check_fits(cost, best, work, "decode")
    room = max(0, spare_slots(cost, best, work, "decode"))  # of no GPU, none
    if slots > room:
        raise InputError(
            expected=f"trimoe.slots up to {room}, which is what fits", got=str(slots), hint="trimoe.slots=-1"
        )
    best = replace(best, expert_slots=room if slots < 0 else slots)
    check_fits(cost, best, work, "decode")
    return best


def _kv_share(cost: CostModel, deployment: Deployment, work: Workload, wanted: float) -> float:
    """A share between 0 and 1; of "what fits", the largest in steps of 1 %."""
    if wanted >= 0:
        return wanted
    shares = (percent / 100 for percent in range(100, -1, -1))
    fits = (
        one for one in shares if spare_slots(cost, replace(deployment, kv_on_gpu=one), work, "decode") >= 0
    )
    return next(fits, 0.0)
