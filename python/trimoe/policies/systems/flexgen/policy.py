"""FlexGen (arXiv 2303.06865): one linear program places weights, cache and hidden states; a block of batches
goes zig-zag through the layers, so that weights are streamed once for all of them.

The program's times come from the cost core instead of fitted constants. What our deployments cannot say is
decided here all the same: hidden states may lie in host memory (h_c), which only the program's times count.
A block is the deployment's batch, a GPU batch its micro-batch; experts are part of a layer's weights and run
on the GPU, all of a layer streamed. One policy serves prompt and decode, as in the paper; no disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from trimoe.cost import CostModel
from trimoe.cost.layer_ops import hidden_bytes
from trimoe.placement import LayerPlan
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, gpu_ledger, host_ledger
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.deployment_search import nothing_fits
from trimoe.policies.deployment.forecast import Forecast, halves, streamed
from trimoe.policies.systems.flexgen.program import (
    ONE,
    Affine,
    PlacementProblem,
    PlacementShares,
    solve_placement,
    total,
)

__all__ = ["FlexGen", "FlexGenChoice"]


@dataclass(frozen=True)
class FlexGenOptions(Options):
    """See `option`."""

    attention: str = option(
        "auto",
        "where attention runs at decode: the CPU beside the cache, the GPU, or the faster",
        choices=("auto", "cpu", "gpu"),
    )
    decode_time: str = option(
        "paper",
        "a layer takes as long as its longest part, or as in the released code, which copies first",
        choices=("paper", "released"),
    )
    gpu_batch: int = option(0, "requests of one GPU batch; 0: searched", low=0, high=2**20)
    batches: int = option(0, "GPU batches of a block; 0: searched", low=0, high=2**20)


@dataclass(frozen=True)
class FlexGenChoice:
    """What the search found. total_ns: of all blocks, prompt and decode."""

    gpu_batch: int
    block: int
    attention: str
    placement: PlacementShares
    total_ns: float


class FlexGen(Policy):
    """Linear program over shares, search over batches."""

    name, about = "flexgen", "linear program for shares of weights and cache; layers streamed to the GPU"
    OptionsType = FlexGenOptions

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The searched policy, as one phase sees it."""
        choice = self.search(work)
        deployment = _deployment(self.cost, choice, phase)
        check_fits(self.cost, deployment, work, phase)
        return deployment

    def plan(self, step: LayerStep) -> LayerPlan:
        """Everything on the GPU, what is not there streamed, used or not."""
        return streamed(step.counts, step.residency)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a policy lives as long as its run
    def search(self, work: Workload) -> FlexGenChoice:
        """Doubles the GPU batch; of each, doubles the block up to what fits, and then to the last batch."""
        need(self.cost, self.name, gpu=True)
        best: FlexGenChoice | None = None
        asked = self.options.attention
        for attention in ("cpu", "gpu") if asked == "auto" else (asked,):
            for gpu_batch in halves(work.batch) if not self.options.gpu_batch else [self.options.gpu_batch]:
                for choice in self._blocks(work, min(gpu_batch, work.batch), attention):
                    if best is None or choice.total_ns < best.total_ns:
                        best = choice
        if best is None:
            least = Deployment(1, 1, False, kv_on_gpu=0, dense_on_gpu=0)
            raise nothing_fits(self.cost, least, work, ("prefill", "decode"), "flexgen.gpu_batch")
        return best

    def _blocks(self, work: Workload, gpu_batch: int, attention: str) -> Iterator[FlexGenChoice]:
        most = -(-work.batch // gpu_batch)
        if self.options.batches:
            found = self._solve(work, gpu_batch, min(self.options.batches, most), attention)
            if found is not None:
                yield found
            return
        fits = 0
        too_many = most + 1
        for batches in halves(most):
            found = self._solve(work, gpu_batch, batches, attention)
            if found is None:
                too_many = batches
                break
            fits = batches
            yield found
        while fits and too_many - fits > 1:
            middle = (fits + too_many) // 2
            found = self._solve(work, gpu_batch, middle, attention)
            if found is None:
                too_many = middle
            else:
                fits = middle
                yield found

    def _solve(self, work: Workload, gpu_batch: int, batches: int, attention: str) -> FlexGenChoice | None:
        block = min(work.batch, gpu_batch * batches)
        times = {
            phase: self._times(work, phase, block, gpu_batch, attention) for phase in ("prefill", "decode")
        }
        if self.options.decode_time == "released":
            load, *others = times["decode"]
            times["decode"] = [load, *(total(load, one) for one in others)]
        problem = PlacementProblem(
            prefill=times["prefill"],
            decode=times["decode"],
            limits=self._limits(work, block, gpu_batch, attention),
            layers=self.cost.shape.moe.layers,
            steps=max(0, work.output - 1),
            zero=frozenset({"w_n", "c_n", "h_n"} | ({"c_g"} if attention == "cpu" else set())),
        )
        placement = solve_placement(problem)
        if placement is None:
            return None
        blocks = -(-work.batch // block)
        return FlexGenChoice(gpu_batch, block, attention, placement, placement.time * blocks)

    def _times(self, work: Workload, phase: str, block: int, gpu_batch: int, attention: str) -> list[Affine]:
        """Nanoseconds of a layer: of the copies to the GPU, back, of the GPU, of the CPU."""
        cost, moe = self.cost, self.cost.shape.moe
        forecast = Forecast(cost, work, phase)
        where = attention if phase == "decode" else "gpu"
        here = Deployment(
            block, gpu_batch, False, attention=where, expert_slots=moe.experts, stream_ahead=True
        )
        found = forecast.layer(here, streamed)
        busy = found.attention + found.experts
        ops = LayerTasks(cost, here, forecast.new_tokens).ops(forecast.context, moe=True)
        res, n = cost.resources, here.micro_batches
        states = hidden_bytes(cost.shape, block * forecast.new_tokens)
        setup = cost.profile.pcie.setup_ns if cost.profile.pcie else 0.0
        weights = ops.qkv.weight_bytes + ops.out.weight_bytes + moe.experts * cost.expert_bytes
        to_gpu, back = (_ns_per_byte(cost, direction) for direction in ("h2d", "d2h"))
        far_cache = n * ops.attention.kv_bytes if phase == "decode" and where == "gpu" else 0.0
        new_cache = n * ops.new_kv_bytes if where == "gpu" else 0.0
        load = {
            ONE: float(busy[res.h2d]),
            "w_c": weights * to_gpu + moe.experts * setup,
            "c_c": far_cache * to_gpu,
            "h_c": states * to_gpu,
        }
        store = {ONE: float(busy[res.d2h]), "c_c": new_cache * back, "h_c": states * back}
        return [load, store, {ONE: float(busy[res.gpu])}, {ONE: float(busy[res.cpu])}]

    def _limits(
        self, work: Workload, block: int, gpu_batch: int, attention: str
    ) -> list[tuple[Affine, float]]:
        """Bytes of GPU memory in both phases, and of host memory: the ledgers, as sums over shares."""
        cost, gpu = self.cost, self.cost.profile.gpu
        assert gpu is not None
        limits: list[tuple[Affine, float]] = []
        for phase, new_tokens in (("prefill", work.input), ("decode", 1)):
            where = attention if phase == "decode" else "gpu"
            nothing = Deployment(
                block,
                gpu_batch,
                False,
                attention=where,
                kv_on_gpu=0,
                dense_on_gpu=0,
                stream_ahead=True,
            )
            states = hidden_bytes(cost.shape, block * new_tokens)

            def on_gpu(one: Deployment, phase: str = phase) -> float:
                return sum(gpu_ledger(cost, one, work, phase).values())

            def on_host(one: Deployment) -> float:
                return sum(host_ledger(cost, one, work).values())

            held = _slopes(on_gpu, nothing, cost.shape.moe.experts)
            limits.append((total(held, {"h_g": states}), gpu.memory_bytes))
            host = _slopes(on_host, nothing, cost.shape.moe.experts)
            limits.append((total(host, {"h_c": states}), cost.profile.memory.capacity_bytes))
        return limits


def _slopes(ledger: Callable[[Deployment], float], nothing: Deployment, experts: int) -> Affine:
    """A ledger as a sum over w_g and c_g; below all, where buffers for streams are needed."""
    none = ledger(nothing)
    dense = 2 * (ledger(replace(nothing, dense_on_gpu=0.5)) - none)
    slots = experts * (ledger(replace(nothing, expert_slots=1)) - none)
    return {ONE: none, "w_g": dense + slots, "c_g": ledger(replace(nothing, kv_on_gpu=1.0)) - none}


def _deployment(cost: CostModel, choice: FlexGenChoice, phase: str) -> Deployment:
    shares, experts = choice.placement.shares, cost.shape.moe.experts
    slots = int(shares["w_g"] * experts + 1e-6)
    base = Deployment(
        choice.block,
        choice.gpu_batch,
        coalesced=False,
        attention=choice.attention if phase == "decode" else "gpu",
        expert_slots=slots,
        stream_ahead=True,
    )
    # A share that rounding left a hair below all is all.
    dense = 1.0 if shares["w_g"] > 1 - 1e-6 else shares["w_g"]
    return replace(base, dense_on_gpu=dense, kv_on_gpu=0.0 if choice.attention == "cpu" else shares["c_g"])


def _ns_per_byte(cost: CostModel, direction: str) -> float:
    one, two = (float(cost.transfer_load(direction, n_bytes).max()) for n_bytes in (1e9, 2e9))
    return (two - one) / 1e9
