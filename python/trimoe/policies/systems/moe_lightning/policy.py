"""MoE-Lightning (arXiv 2411.11217): a search over batch, micro-batch and placement by the hierarchical
roofline, and a pipeline that streams weights in pages between micro-batches (CGOPipe).

For every batch and micro-batch the search minimises max(copies to the GPU, CPU, GPU) of a layer over the
placements (section 4). That roofline does not see how micro-batches overlap, so that among these the
pipeline's own schedule decides. Pages, the two micro-batches that CPU attention runs ahead and the double
buffer are what a deployment with micro-batches, `stream_ahead` and `pipelined` does. Prompts run on the GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Floats
from trimoe.cost import CostModel
from trimoe.cost.layer_ops import kv_bytes
from trimoe.errors import InputError
from trimoe.placement import LayerPlan, Residency
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, gpu_room
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.deployment_search import halved, nothing_fits, with_room
from trimoe.policies.deployment.forecast import Forecast, LayerTime, all_on_cpu, halves, streamed

__all__ = ["LightningChoice", "MoELightning"]

_WEIGHT_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the experts that there is room for
_PLACES = {"auto": ("cpu", "gpu"), "cpu": ("cpu",), "gpu": ("gpu",)}


@dataclass(frozen=True)
class MoELightningOptions(Options):
    """See `option`."""

    attention: str = option(
        "auto", "where attention runs at decode (A_g): searched, or fixed", choices=("auto", "cpu", "gpu")
    )
    experts: str = option(
        "gpu",
        "where experts run at decode (F_g): the GPU, which the pipeline is made for; the CPU; or searched",
        choices=("auto", "cpu", "gpu"),
    )
    batch: int = option(0, "requests in a batch (N); 0: searched", low=0, high=2**20)
    micro_batch: int = option(0, "requests of a micro-batch; 0: searched", low=0, high=2**20)
    contention: bool = option(False, "memory channels limit a layer too, which the paper's roofline omits")


@dataclass(frozen=True)
class LightningChoice:
    """deployment, and where experts that the GPU does not hold run. layer_ns: by the roofline."""

    deployment: Deployment
    experts: str
    layer_ns: float


class MoELightning(Policy):
    """Roofline search, paged weights, attention on the CPU."""

    name, about = (
        "moe-lightning",
        "search by a hierarchical roofline; weights paged to the GPU, CPU attention",
    )
    OptionsType = MoELightningOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        self._streams: dict[str, bool] = {}  # by phase

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The searched policy; prompts take its batch and its share of the cache."""
        choice = self.search(work) if phase == "decode" else self._prefill(work)
        check_fits(self.cost, choice.deployment, work, phase)
        return choice.deployment

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """The most popular experts on the GPU; who streams has no experts on the CPU."""
        self._streams[phase] = deployment.stream_ahead
        return super().begin(phase, deployment, popularity)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Everything streamed to the GPU, or what is not there on the CPU."""
        place = streamed if self._streams[step.phase] else all_on_cpu
        return place(step.counts, step.residency)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a policy lives as long as its run
    def search(self, work: Workload) -> LightningChoice:
        """Decode: the choice of the least time for all requests; of equals the first."""
        need(self.cost, self.name, gpu=True)
        forecast = Forecast(self.cost, work, "decode")
        best: LightningChoice | None = None
        best_ns = float("inf")
        for base in self._batches(work):
            choice = self._placement(forecast, base)
            if choice is None:
                continue
            plan_of = streamed if choice.experts == "gpu" else all_on_cpu
            ns = forecast.total_ns(choice.deployment, plan_of)
            if ns < best_ns:
                best, best_ns = choice, ns
        if best is None:
            raise self._nothing_fits(work)
        return best

    def _batches(self, work: Workload) -> Iterator[Deployment]:
        options = self.options
        for batch in [min(options.batch, work.batch)] if options.batch else halved(work.batch):
            micro = [min(options.micro_batch, batch)] if options.micro_batch else halves(batch)
            for micro_batch in micro:
                yield Deployment(batch, micro_batch, coalesced=False, kv_on_gpu=0.0, stream_ahead=True)

    def _placement(self, forecast: Forecast, base: Deployment) -> LightningChoice | None:
        """The least roofline over A_g, F_g, r_w and r_c; None where none fits."""
        best: LightningChoice | None = None
        for attention in _PLACES[self.options.attention]:
            for experts in _PLACES[self.options.experts]:
                here = replace(base, attention=attention, stream_ahead=experts == "gpu")
                for choice in self._shares(forecast, here, experts):
                    if best is None or choice.layer_ns < best.layer_ns:
                        best = choice
        return best

    def _shares(self, forecast: Forecast, base: Deployment, experts: str) -> Iterator[LightningChoice]:
        """r_w in steps, r_c what is left; where the dense weights do not fit, they are streamed too."""
        base, most = with_room(self.cost, base, forecast.work, "decode")
        for slots in sorted({int(share * most) for share in _WEIGHT_SHARES}) if most >= 0 else ():
            deployment = self._with_cache(replace(base, expert_slots=slots), forecast.work)
            try:
                check_fits(self.cost, deployment, forecast.work, "decode")
            except InputError:  # host memory
                return
            plan_of = streamed if experts == "gpu" else all_on_cpu
            yield LightningChoice(deployment, experts, self._time(forecast.rows(deployment, plan_of)))

    def _with_cache(self, deployment: Deployment, work: Workload) -> Deployment:
        """As much of the cache on the GPU as there is room for; none where the CPU attends."""
        if deployment.attention == "cpu":
            return deployment
        room = gpu_room(self.cost, deployment, work, "decode")
        cache = kv_bytes(self.cost.shape, deployment.batch, work.input + work.output)
        return replace(deployment, kv_on_gpu=min(1.0, max(0.0, room / cache)))

    def _time(self, layer: LayerTime) -> float:
        """max(copies to the GPU, CPU, GPU); all resources where contention counts."""
        if self.options.contention:
            return layer.ns
        res = self.cost.resources
        return float(np.max((layer.attention + layer.experts)[[res.h2d, res.cpu, res.gpu]]))

    def _prefill(self, work: Workload) -> LightningChoice:
        """The micro-batch of the least time, all on the GPU; the cache as at decode, if there is room."""
        decode = self.search(work).deployment
        forecast = Forecast(self.cost, work, "prefill")
        best: LightningChoice | None = None
        for cache in sorted({decode.kv_on_gpu, 0.0}, reverse=True):
            for micro_batch in halves(decode.batch) if best is None else ():
                base = replace(
                    decode,
                    micro_batch=micro_batch,
                    attention="gpu",
                    kv_on_gpu=cache,
                    expert_slots=0,
                    stream_ahead=True,
                )
                base, most = with_room(self.cost, base, work, "prefill")
                if most < 0:
                    break
                deployment = replace(base, expert_slots=most)
                found = LightningChoice(deployment, "gpu", forecast.layer(deployment, streamed).ns)
                if best is None or found.layer_ns < best.layer_ns:
                    best = found
        if best is None:
            raise self._nothing_fits(work)
        return best

    def _nothing_fits(self, work: Workload) -> InputError:
        least = Deployment(1, 1, False, kv_on_gpu=0.0, dense_on_gpu=0.0, stream_ahead=True)
        return nothing_fits(self.cost, least, work, ("prefill", "decode"), "moe-lightning.batch")
