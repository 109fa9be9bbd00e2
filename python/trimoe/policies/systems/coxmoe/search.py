"""CoX-MoE's offline search over (x0, x1, x2, EXP_R, EXP_M, EXP_C, m), arXiv 2605.17889.

Exhaustive, and fast because attention and experts share nothing but memory: what the experts take is worked
out once for every split, and a way to run attention only says how many residents leave room for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import NOTHING, CostModel
from trimoe.cost.layer_ops import head_op
from trimoe.domains import GPU
from trimoe.errors import InputError
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, host_ledger, spare_slots
from trimoe.policies.deployment.deployment_search import halved
from trimoe.policies.deployment.forecast import Forecast
from trimoe.policies.systems.coxmoe.times import Timing, attention_ns, split_ns

__all__ = ["Choice", "Space", "expected_tokens", "predict", "search"]

_EQUAL = 1 + 1e-9


@dataclass(frozen=True)
class Space:
    """What is searched. qkv, attention, out: places that may run these parts ("cpu", "gpu"), OP0 to OP2.

    micro_batches: sizes m; empty for the batch, halved again and again. coalesced: whether experts may, or
    must, see the whole batch. kv_on_gpu: shares of the KV cache that may be in GPU memory where attention is
    there; pipelined: see `Deployment`.
    """

    qkv: tuple[str, ...] = ("gpu", "cpu")
    attention: tuple[str, ...] = ("gpu", "cpu")
    out: tuple[str, ...] = ("gpu", "cpu")
    micro_batches: tuple[int, ...] = ()
    coalesced: tuple[bool, ...] = (True, False)
    kv_on_gpu: tuple[float, ...] = (1.0, 0.0)
    pipelined: bool = True

    def deployments(self, batch: int) -> Iterator[Deployment]:
        """All of them, without experts in GPU memory yet."""
        sizes = tuple(one for one in self.micro_batches if one <= batch) or halved(batch)
        places = itertools.product(self.qkv, self.attention, self.out)
        for (qkv, attention, out), size, coalesced in itertools.product(places, sizes, self.coalesced):
            if size == batch and not coalesced and True in self.coalesced:
                continue  # the same thing
            for share in self.kv_on_gpu if attention == "gpu" else (0.0,):
                yield Deployment(
                    batch,
                    size,
                    coalesced=coalesced,
                    qkv=qkv,
                    attention=attention,
                    out=out,
                    kv_on_gpu=share,
                    pipelined=self.pipelined,
                )


@dataclass(frozen=True)
class Choice:
    """A deployment, the split of a layer's experts, and what both are expected to take.

    resident, moved, on_cpu: EXP_R, EXP_M, EXP_C; idle residents count, idle others do not. attention_ns,
    experts_ns: of one MoE layer; step_ns: of all layers and the output: a decode step, or the prefill.
    """

    deployment: Deployment
    resident: int
    moved: int
    on_cpu: int
    attention_ns: float
    experts_ns: float
    step_ns: float


def expected_tokens(cost: CostModel, work: Workload, phase: str, popularity: Floats | None = None) -> Ints:
    """[E] tokens of each expert, most popular first.

    Without popularity as the paper has it, t = B s k / E for every expert that some token takes. With it,
    [MoE layers, E]: in proportion, of the mean over layers of the first, the second, ... of each.
    """
    moe, choices = cost.shape.moe, work.batch * Forecast(cost, work, phase).new_tokens * cost.shape.topk
    if popularity is not None and np.any(popularity):
        share = -np.sort(-np.asarray(popularity, np.float64), axis=-1).mean(0)
        return _whole(choices * share / share.sum(), choices)
    untouched = (1 - cost.shape.topk / moe.experts) ** (choices / cost.shape.topk)
    active = max(cost.shape.topk, round(moe.experts * (1 - untouched)))
    # Spread over the ranks, so that any n residents have their share of the active ones.
    ranks = np.arange(moe.experts)
    is_active = (ranks + 1) * active // moe.experts > ranks * active // moe.experts
    return _whole(np.where(is_active, choices / active, 0.0), choices)


def search(cost: CostModel, work: Workload, phase: str, space: Space, tokens: Ints, timing: Timing) -> Choice:
    """The quickest feasible choice; of equals the first, GPU before CPU and large micro-batches first.

    tokens: [E], in the order in which GPU memory takes the experts.

    Raises:
        InputError: nothing fits into GPU or host memory.
    """
    step = _Step(cost, work, phase, timing)
    feasible = [
        (one, spare_slots(cost, one, work, phase))
        for one in space.deployments(work.batch)
        if sum(host_ledger(cost, one, work).values()) <= cost.profile.memory.capacity_bytes
    ]
    most = max((slots for _, slots in feasible), default=-1)
    splits: dict[tuple[str, int], _Splits] = {}
    best: tuple[float, Deployment, int, int] | None = None
    for deployment, slots in feasible:
        if slots < 0:
            continue
        key = (deployment.out, 1 if deployment.coalesced else deployment.micro_batches)
        if key not in splits:
            splits[key] = _Splits(split_ns(cost, deployment, tokens, most, step.tokens_each, timing))
        experts_ns, resident, moved = splits[key].best(slots)
        total_ns = step.total_ns(deployment, experts_ns)
        if best is None or total_ns < best[0]:
            best = (total_ns, deployment, resident, moved)
    if best is None:
        raise _no_fit(cost, work, phase, space)
    _, deployment, resident, moved = best
    chosen = replace(deployment, expert_slots=resident, expert_fetches=moved)
    return predict(cost, work, phase, chosen, tokens, timing)


def predict(
    cost: CostModel,
    work: Workload,
    phase: str,
    deployment: Deployment,
    tokens: Ints,
    timing: Timing,
) -> Choice:
    """What a deployment takes with its slots full and its fetches, everything else on the CPU."""
    step, resident = _Step(cost, work, phase, timing), deployment.expert_slots
    moved = deployment.expert_fetches
    times = split_ns(cost, deployment, tokens, resident, step.tokens_each, timing)
    experts_ns = float(times[resident, moved])
    on_cpu = int(np.count_nonzero(tokens[resident:])) - moved
    attention = step.attention_ns(deployment, moe=True)
    total_ns = step.total_ns(deployment, experts_ns)
    return Choice(deployment, resident, moved, on_cpu, attention, experts_ns, total_ns)


class _Step:
    """One pass through all layers."""

    def __init__(self, cost: CostModel, work: Workload, phase: str, timing: Timing) -> None:
        self._cost, self._timing = cost, timing
        when = Forecast(cost, work, phase)
        self.tokens_each, self._context = when.new_tokens, when.context
        head = head_op(cost.shape, work.batch)
        gpu = cost.profile.gpu is not None
        load = cost.dense_load(GPU, head.flops, head.weight_bytes) if gpu else NOTHING
        self._head_ns = float(load.max(initial=0.0))

    def attention_ns(self, deployment: Deployment, *, moe: bool) -> float:
        """Of a layer."""
        return attention_ns(self._cost, deployment, self.tokens_each, self._context, self._timing, moe=moe)

    def total_ns(self, deployment: Deployment, experts_ns: float) -> float:
        """Of all layers and the output."""
        shape = self._cost.shape
        total = len(shape.moe.moe_layers) * (self.attention_ns(deployment, moe=True) + experts_ns)
        if shape.dense_layers:
            total += shape.dense_layers * self.attention_ns(deployment, moe=False)
        return total + self._head_ns


class _Splits:
    """The best split for every number of slots; times: [resident, moved].

    Of equals (but for rounding) the one with most residents, and of these with fewest moved: least traffic.
    """

    def __init__(self, times: Floats) -> None:
        self._times = times.min(1)
        self._moved = (times <= self._times[:, None] * _EQUAL).argmax(1)

    def best(self, slots: int) -> tuple[float, int, int]:
        """Nanoseconds, residents and moved, with at most so many residents."""
        times = self._times[: slots + 1]
        resident = int(np.flatnonzero(times <= times.min() * _EQUAL)[-1])
        return float(self._times[resident]), resident, int(self._moved[resident])


def _no_fit(cost: CostModel, work: Workload, phase: str, space: Space) -> InputError:
    """Says what is too large, of the most modest deployment."""
    modest = list(space.deployments(work.batch))[-1]
    try:
        check_fits(cost, modest, work, phase)
    except InputError as error:
        return error
    return InputError(expected="a machine with a GPU", got=cost.profile.name, hint="h100-8452y")


def _whole(amounts: Floats, total: int) -> Ints:
    """Integers near the amounts that add up to the total: largest remainders first."""
    whole = np.floor(amounts).astype(np.int64)
    missing = int(total - whole.sum())
    if missing > 0:
        whole[np.argsort(whole - amounts, kind="stable")[:missing]] += 1
    return whole
