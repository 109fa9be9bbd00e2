"""Loads of one model on one machine: of experts on each domain, of copies, moves, and everything dense.

A load is what work occupies: [resources] float64 nanoseconds, 0 for a resource that it does not touch, never
written to. Domains and layouts are those of `trimoe.domains`; where DIMMs are plain memory, the place that
holds all of an expert is a channel. Weights and compute are counted, activations beside an expert's matrices
are not: they stay in caches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trimoe.arrays import Floats
from trimoe.cost.curve import RampCurve
from trimoe.cost.dimm import DimmCosts
from trimoe.cost.rates import measured_curve, peak_tflops
from trimoe.cost.resources import Resources
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import Profile
from trimoe.human import human_number
from trimoe.layer.packed_size import packed_expert_bytes
from trimoe.model_shape import ModelShape

__all__ = ["CostModel"]

# Domain, tokens, layout, whether nothing need be fetched, batches.
_Expert = tuple[int, int, int, bool, int]


class CostModel:
    """Costs of one model on one machine; remembers the loads of experts, fetches and moves.

    Args:
        profile: the machine.
        shape: the model.
        weights: packed format of the routed experts, one of `trimoe.layer.expert_layer.WEIGHT_FORMATS`.
        group: int4's weights that share a scale; 0 for the default.

    Attributes:
        profile, shape, weights, resources: as given, and the machine's resources.
        expert_bytes: of one routed expert, scales included.
        domains: that the machine has.

    Raises:
        InputError: the format is unknown, or a domain of the machine cannot compute in it.
    """

    def __init__(self, profile: Profile, shape: ModelShape, weights: str = "bf16", group: int = 0) -> None:
        moe = shape.moe
        self.profile, self.shape, self.weights = profile, shape, weights
        self.resources = Resources(profile)
        self.expert_bytes = packed_expert_bytes(
            moe.hidden, moe.inter, weights, gated=moe.gated, bias=moe.has_bias, group=group
        )
        ndp, host_gbps = profile.ndp, profile.memory.stream_gbps
        self._dimms = DimmCosts(ndp, moe.hidden, moe.inter, weights, host_gbps) if ndp else None
        self._slices: DimmCosts | None = None
        n_dimms = self.resources.n_dimms
        self.domains = (CPU, *((GPU,) if profile.gpu else ()), *range(FIRST_DIMM, FIRST_DIMM + n_dimms))
        self._compute = {domain: self._curve(domain) for domain in self.domains if domain < FIRST_DIMM}
        # The one memo of all loads that experts have, each with its longest part.
        self._experts: dict[_Expert, tuple[Floats, float]] = {}
        self._fetches: dict[int, tuple[Floats, float]] = {}
        self._moves: dict[tuple[int, int], Floats] = {}

    def expert_load(
        self, domain: int, tokens: int, layout: int = STRIPED, *, resident: bool = False, batches: int = 1
    ) -> Floats:
        """What one expert occupies on a domain, or on all DIMMs at once (`SPLIT`); nothing without tokens.

        resident: the GPU has it, and nothing is fetched; all the same on other domains. batches: that the
        tokens are computed in; each reads the weights again, and a fetch is for all. InputError for a domain
        that cannot have it.
        """
        key = (domain, tokens, layout, resident or domain != GPU, batches)
        return (self._experts.get(key) or self._work_out(key))[0]

    def expert_ns(
        self, domain: int, tokens: int, layout: int = STRIPED, *, resident: bool = False, batches: int = 1
    ) -> float:
        """What one expert takes where nobody disturbs it; arguments and errors as for `expert_load`."""
        key = (domain, tokens, layout, resident or domain != GPU, batches)
        return (self._experts.get(key) or self._work_out(key))[1]

    def fetch_load(self, layout: int = STRIPED) -> Floats:
        """The copy of an expert's weights to the GPU."""
        return self._fetch(layout)[0]

    def fetch_ns(self, layout: int = STRIPED) -> float:
        """What that copy takes where nobody disturbs it."""
        return self._fetch(layout)[1]

    def transfer_load(self, direction: str, n_bytes: float, layout: int = STRIPED) -> Floats:
        """A copy to ("h2d") or from ("d2h") the GPU: its engine, channels and DIMMs of the host memory."""
        pcie = self.profile.pcie
        if pcie is None or direction not in ("h2d", "d2h") or not 0 <= n_bytes < float("inf"):
            raise InputError(
                expected="direction h2d or d2h, bytes from 0 on, and a machine with a GPU",
                got=f"{direction}, {human_number(n_bytes)} bytes on {self.profile.name}",
                hint="a profile with a GPU",
            )
        if not n_bytes:
            return self._load()
        memory = self.host_load(n_bytes, layout)
        engine, gbps = (
            (self.resources.h2d, pcie.h2d_gbps) if direction == "h2d" else (self.resources.d2h, pcie.d2h_gbps)
        )
        # Copies of one direction follow each other, so that one that waits for memory holds the engine.
        busy_ns = pcie.setup_ns + max(n_bytes / gbps, float(memory.max()))
        return self._load((engine, busy_ns), beside=memory)

    def host_load(self, n_bytes: float, layout: int = STRIPED) -> Floats:
        """The host's reading or writing of its memory: channels, and the time that DIMM cores lose."""
        ns = n_bytes / self.profile.memory.stream_gbps
        # A core is never kept longer than the read itself takes.
        lost_ns = min(ns, n_bytes * self._dimms.host_ns_per_byte) if self._dimms else 0.0
        res = self.resources
        if layout != STRIPED:
            cores = ((res.dimm(layout), lost_ns),) if self._dimms else ()
            return self._load((res.channel_of(layout), ns), *cores)
        load = np.zeros(len(res))
        load[res.channels] = ns / res.n_channels
        load[res.dimms] = lost_ns / max(1, res.n_dimms)
        return load

    def move_load(self, source: int, target: int) -> Floats:
        """Moving an expert to another layout: over the DIMM link; without one the host reads and writes."""
        load = self._moves.get((source, target))
        if load is None:
            self._check(CPU, 1, source)
            self._check(CPU, 1, target)
            load = self._moves[source, target] = _kept(self._move(source, target))
        return load

    def dense_load(self, domain: int, flops: float, n_bytes: float, fmt: str = "bf16") -> Floats:
        """Anything dense by roofline: operations in a format, bytes of the domain's own memory.

        On the CPU the bytes are striped; DIMMs do nothing dense.
        """
        self._check(domain, 1, STRIPED)
        if domain not in (CPU, GPU) or not 0 <= flops < float("inf") or not 0 <= n_bytes < float("inf"):
            raise InputError(
                expected="CPU or GPU, operations and bytes from 0 on",
                got=f"domain {domain}, {human_number(flops)} operations, {human_number(n_bytes)} bytes",
                hint="domain 0 or 1",
            )
        unit = self.profile.cpu if domain == CPU else self.profile.gpu
        assert unit is not None
        compute_ns = flops / (peak_tflops(unit, fmt) * unit.max_efficiency * 1e3)
        if domain == GPU:
            assert self.profile.gpu is not None
            return self._load((self.resources.gpu, max(compute_ns, n_bytes / self.profile.gpu.memory_gbps)))
        memory = self.host_load(n_bytes)
        return self._load((self.resources.cpu, max(compute_ns, float(memory.max()))), beside=memory)

    def near_load(self, flops: float, n_bytes: float) -> Floats:
        """Anything dense on all DIMMs at once, each with its share: its ranks' stream or its core's peak."""
        self._check(FIRST_DIMM, 1, 0)
        assert self._dimms is not None and self.profile.ndp is not None
        n = self.resources.n_dimms
        stream_ns = n_bytes / n / (self.expert_bytes / self._dimms.stream_ns)
        load = np.zeros(len(self.resources))
        load[self.resources.dimms] = max(stream_ns, flops / n / (self.profile.ndp.tflops * 1e3))
        return load

    def _work_out(self, key: _Expert) -> tuple[Floats, float]:
        """What is not known yet of an expert: its load, and the longest part of that."""
        domain, tokens, layout, here, batches = key
        self._check(domain, tokens, layout)
        load = self._load()
        if tokens:
            load = self._computing(domain, -(-tokens // batches), layout) * min(batches, tokens)
            if not here:
                load += self.fetch_load(layout)
        self._experts[key] = _kept(load), float(load.max())
        return self._experts[key]

    def _fetch(self, layout: int) -> tuple[Floats, float]:
        known = self._fetches.get(layout)
        if known is None:
            self._check(GPU, 1, layout)
            load = _kept(self.transfer_load("h2d", self.expert_bytes, layout))
            known = self._fetches[layout] = load, float(load.max())
        return known

    def _computing(self, domain: int, tokens: int, layout: int) -> Floats:
        """An expert where its weights are, in one go."""
        res = self.resources
        if domain == SPLIT:
            return self._on_all_dimms(tokens)
        if domain == GPU:
            return self._load((res.gpu, self._compute[GPU](tokens)))
        if domain == CPU:
            memory = self.host_load(self.expert_bytes, layout)
            # Cores that wait for memory do nothing else.
            own_ns = max(self._compute[CPU](tokens), float(memory.max()))
            return self._load((res.cpu, own_ns), beside=memory)
        return self._on_dimm(domain - FIRST_DIMM, tokens, layout)

    def _on_dimm(self, dimm: int, tokens: int, layout: int) -> Floats:
        res, costs = self.resources, self._dimms
        assert costs is not None
        times, load = costs.expert(tokens, layout == STRIPED), np.zeros(len(res))
        if layout == STRIPED:
            load[res.dimms] = times.others_ns
            load[res.link] = times.link_ns
        load[res.dimm(dimm)] = times.dimm_ns
        load[res.channel_of(dimm)] = times.channel_ns
        return load

    def _on_all_dimms(self, tokens: int) -> Floats:
        """Every DIMM has a slice of each matrix; all channels carry the tokens."""
        res, moe = self.resources, self.shape.moe
        if self._slices is None:
            assert self.profile.ndp is not None
            host_gbps, inter = self.profile.memory.stream_gbps, -(-moe.inter // res.n_dimms)
            self._slices = DimmCosts(self.profile.ndp, moe.hidden, inter, self.weights, host_gbps)
        times, dimms = self._slices.expert(tokens), range(res.n_dimms)
        return self._load(
            *((res.dimm(dimm), times.dimm_ns) for dimm in dimms),
            *((res.channel_of(dimm), times.channel_ns) for dimm in dimms),
        )

    def _move(self, source: int, target: int) -> Floats:
        if source == target:
            return self._load()
        if self._dimms is None:
            load: Floats = self.host_load(self.expert_bytes, source)
            return load + self.host_load(self.expert_bytes, target)
        res, all_ns = self.resources, self._dimms.stream_ns
        load = self._load((res.link, self._dimms.move_ns(migrate=STRIPED not in (source, target))))
        for layout in (source, target):
            if layout == STRIPED:
                load[res.dimms] += all_ns / res.n_dimms
            else:
                load[res.dimm(layout)] += all_ns
        return load

    def _load(self, *parts: tuple[int, float], beside: Floats | None = None) -> Floats:
        """The sum of parts (resource, nanoseconds), and of another load."""
        load = np.zeros(len(self.resources)) if beside is None else beside.copy()
        for resource, ns in parts:
            load[resource] += ns
        return load

    def _curve(self, domain: int) -> Callable[[int], float]:
        unit = self.profile.cpu if domain == CPU else self.profile.gpu
        assert unit is not None
        moe = self.shape.moe
        name = "cpu" if domain == CPU else "gpu"
        curve = measured_curve(self.profile.tables, name, self.weights, moe.hidden, moe.inter)
        if curve is not None:
            return curve
        gpu = self.profile.gpu
        return RampCurve(
            flops_per_token=2.0 * self.shape.expert_elements,
            peak_tflops=peak_tflops(unit, self.weights),
            max_efficiency=unit.max_efficiency,
            half_tokens=unit.half_tokens,
            bytes_ns=self.expert_bytes / gpu.memory_gbps if domain == GPU and gpu else 0.0,
        )

    def _check(self, domain: int, tokens: int, layout: int) -> None:
        places = self.profile.n_dimms
        here = domain < FIRST_DIMM or layout in (STRIPED, domain - FIRST_DIMM)
        there = domain in self.domains or (domain == SPLIT and self._dimms is not None)
        if not there or tokens < 0 or not STRIPED <= layout < places or not here:
            raise InputError(
                expected=f"a domain out of {len(self.domains)} of {self.profile.name}, tokens from 0 on, "
                f"and an expert striped (-1) or on place 0 to {places - 1}, which a DIMM runs only itself",
                got=f"domain {domain}, {tokens} tokens, layout {layout}",
                hint="`CostModel.domains`",
            )


def _kept(load: Floats) -> Floats:
    """The same, for many to read."""
    load.flags.writeable = False
    return load
