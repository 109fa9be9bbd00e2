"""Tasks of one model on one machine: experts on each domain, copies, moves, and everything dense.

Domains are those of the op: 0 the CPU, 1 the GPU, 2 + d the DIMM d. A layout is `STRIPED` or the number of
the place that holds all of an expert: a DIMM, or a channel where DIMMs are plain memory. Weights and compute
are counted, activations beside an expert's matrices are not: they stay in caches.
"""

from __future__ import annotations

from collections.abc import Callable

from trimoe.cost.clock import Task
from trimoe.cost.curve import RampCurve
from trimoe.cost.dimm import DimmCosts
from trimoe.cost.rates import measured_curve, peak_tflops
from trimoe.cost.resources import Resources
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import Profile
from trimoe.human import human_number
from trimoe.layer.packed_size import packed_expert_bytes
from trimoe.model_shape import ModelShape

__all__ = ["CostModel"]

Parts = tuple[tuple[int, float], ...]


class CostModel:
    """Costs of one model on one machine.

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
        self._known: dict[tuple[int, int, int, bool], Parts] = {}

    def expert_ns(self, domain: int, tokens: int, layout: int = STRIPED, *, resident: bool = False) -> float:
        """What one expert takes on an otherwise idle domain; 0 without tokens.

        resident: the GPU has it, and nothing is fetched. InputError for a domain that cannot have it.
        """
        return max(
            (ns for _, ns in self.expert_parts(domain, tokens, layout, resident=resident)), default=0.0
        )

    def expert_task(
        self,
        domain: int,
        tokens: int,
        layout: int = STRIPED,
        *,
        resident: bool = False,
        name: str = "expert",
        after: tuple[int, ...] = (),
        priority: int = 0,
    ) -> Task:
        """One expert as a task; arguments as for `expert_ns` and `Task`."""
        return Task(name, self.expert_parts(domain, tokens, layout, resident=resident), after, priority)

    def expert_parts(
        self, domain: int, tokens: int, layout: int = STRIPED, *, resident: bool = False
    ) -> Parts:
        """What one expert occupies, and for how long; remembered."""
        key = (domain, tokens, layout, resident)
        parts = self._known.get(key)
        if parts is None:
            self._check(domain, tokens, layout)
            parts = self._known[key] = self._expert(domain, tokens, layout, resident) if tokens else ()
        return parts

    def fetch_parts(self, layout: int = STRIPED) -> Parts:
        """The copy of an expert's weights to the GPU."""
        self._check(GPU, 1, layout)
        return self.transfer_parts("h2d", self.expert_bytes, layout)

    def transfer_parts(self, direction: str, n_bytes: float, layout: int = STRIPED) -> Parts:
        """A copy to ("h2d") or from ("d2h") the GPU: its engine, channels and DIMMs of the host memory."""
        pcie = self.profile.pcie
        if pcie is None or direction not in ("h2d", "d2h") or not 0 <= n_bytes < float("inf"):
            raise InputError(
                expected="direction h2d or d2h, bytes from 0 on, and a machine with a GPU",
                got=f"{direction}, {human_number(n_bytes)} bytes on {self.profile.name}",
                hint="a profile with a GPU",
            )
        if not n_bytes:
            return ()
        memory = self.host_parts(n_bytes, layout)
        engine, gbps = (
            (self.resources.h2d, pcie.h2d_gbps) if direction == "h2d" else (self.resources.d2h, pcie.d2h_gbps)
        )
        # Copies of one direction follow each other, so that one that waits for memory holds the engine.
        busy_ns = pcie.setup_ns + max(n_bytes / gbps, _longest_ns(memory))
        return ((engine, busy_ns), *memory)

    def host_parts(self, n_bytes: float, layout: int = STRIPED) -> Parts:
        """The host's reading or writing of its memory: channels, and the time that DIMM cores lose."""
        ns = n_bytes / self.profile.memory.stream_gbps
        # A core is never kept longer than the read itself takes.
        lost_ns = min(ns, n_bytes * self._dimms.host_ns_per_byte) if self._dimms else 0.0
        res = self.resources
        if layout != STRIPED:
            cores = ((res.dimm(layout), lost_ns),) if self._dimms else ()
            return ((res.channel_of(layout), ns), *cores)
        n, d = res.n_channels, res.n_dimms
        channels = tuple((res.channel(index), ns / n) for index in range(n))
        return (*channels, *((res.dimm(index), lost_ns / d) for index in range(d)))

    def move_parts(self, source: int, target: int, *, by_host: bool = False) -> Parts:
        """Moving an expert to another layout: over the DIMM link, or read and written by the host.

        Without a link between DIMMs only the host can.
        """
        self._check(CPU, 1, source)
        self._check(CPU, 1, target)
        if source == target:
            return ()
        if by_host or self._dimms is None:
            sums: dict[int, float] = {}
            for layout in (source, target):
                for resource, ns in self.host_parts(self.expert_bytes, layout):
                    sums[resource] = sums.get(resource, 0.0) + ns
            return tuple(sums.items())
        res, all_ns = self.resources, self._dimms.stream_ns
        parts = {res.link: self._dimms.move_ns(migrate=STRIPED not in (source, target))}
        for layout in (source, target):
            for dimm in range(res.n_dimms) if layout == STRIPED else (layout,):
                share = all_ns / res.n_dimms if layout == STRIPED else all_ns
                parts[res.dimm(dimm)] = parts.get(res.dimm(dimm), 0.0) + share
        return tuple(parts.items())

    def dense_parts(self, domain: int, flops: float, n_bytes: float, fmt: str = "bf16") -> Parts:
        """Anything dense by roofline: operations in a format, bytes of the domain's own memory.

        On the CPU the bytes are striped; DIMMs do nothing dense.
        """
        self._check(domain, 1, STRIPED)
        if domain >= FIRST_DIMM or not 0 <= flops < float("inf") or not 0 <= n_bytes < float("inf"):
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
            return ((self.resources.gpu, max(compute_ns, n_bytes / self.profile.gpu.memory_gbps)),)
        memory = self.host_parts(n_bytes)
        return ((self.resources.cpu, max(compute_ns, _longest_ns(memory))), *memory)

    def split_parts(self, tokens: int) -> Parts:
        """An expert of which every DIMM has a slice of each matrix; all channels carry the tokens."""
        self._check(FIRST_DIMM, tokens, 0)
        if not tokens:
            return ()
        res, moe = self.resources, self.shape.moe
        if self._slices is None:
            assert self.profile.ndp is not None
            host_gbps, inter = self.profile.memory.stream_gbps, -(-moe.inter // res.n_dimms)
            self._slices = DimmCosts(self.profile.ndp, moe.hidden, inter, self.weights, host_gbps)
        own_ns, channel_ns = self._slices.expert_ns(tokens), self._slices.channel_ns(tokens)
        dimms = range(res.n_dimms)
        channels = {res.channel_of(dimm): 0.0 for dimm in dimms}
        for dimm in dimms:
            channels[res.channel_of(dimm)] += channel_ns
        return (*((res.dimm(dimm), own_ns) for dimm in dimms), *channels.items())

    def near_parts(self, flops: float, n_bytes: float) -> Parts:
        """Anything dense on all DIMMs at once, each with its share: its ranks' stream or its core's peak."""
        self._check(FIRST_DIMM, 1, 0)
        assert self._dimms is not None and self.profile.ndp is not None
        n = self.resources.n_dimms
        stream_ns = n_bytes / n / (self.expert_bytes / self._dimms.stream_ns)
        ns = max(stream_ns, flops / n / (self.profile.ndp.tflops * 1e3))
        return tuple((self.resources.dimm(dimm), ns) for dimm in range(n))

    def _expert(self, domain: int, tokens: int, layout: int, resident: bool) -> Parts:
        res = self.resources
        if domain == GPU:
            compute = (res.gpu, self._compute[GPU](tokens))
            return (compute,) if resident else (compute, *self.fetch_parts(layout))
        if domain == CPU:
            memory = self.host_parts(self.expert_bytes, layout)
            # Cores that wait for memory do nothing else.
            return ((res.cpu, max(self._compute[CPU](tokens), _longest_ns(memory))), *memory)
        return self._on_dimm(domain - FIRST_DIMM, tokens, layout)

    def _on_dimm(self, dimm: int, tokens: int, layout: int) -> Parts:
        res, costs = self.resources, self._dimms
        assert costs is not None
        striped = layout == STRIPED
        own = (
            (res.dimm(dimm), costs.expert_ns(tokens, striped)),
            (res.channel_of(dimm), costs.channel_ns(tokens, striped)),
        )
        if not striped:
            return own
        others_ns = costs.others_ns(tokens)
        others = ((res.dimm(one), others_ns) for one in range(res.n_dimms) if one != dimm)
        return (*own, (res.link, costs.link_ns(tokens)), *others)

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
        if domain not in self.domains or tokens < 0 or not STRIPED <= layout < places or not here:
            raise InputError(
                expected=f"a domain out of {len(self.domains)} of {self.profile.name}, tokens from 0 on, "
                f"and an expert striped (-1) or on place 0 to {places - 1}, which a DIMM runs only itself",
                got=f"domain {domain}, {tokens} tokens, layout {layout}",
                hint="`CostModel.domains`",
            )


def _longest_ns(parts: Parts) -> float:
    return max((ns for _, ns in parts), default=0.0)
