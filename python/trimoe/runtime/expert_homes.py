"""Keeps a model's experts on emulated DIMMs where the residencies place them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trimoe import _ndp, _runtime
from trimoe.domains import FIRST_DIMM, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import NdpProfile
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.ndp import Fleet, NdpError
from trimoe.placement import Relayout, Residency

__all__ = ["ARITHMETIC", "ExpertHomes", "fleet_of", "place_layer"]

_NUMBERS = ("bf16", "int8", "int4")  # packed formats that an NDP core computes
ARITHMETIC = ("host", "core")


def fleet_of(profile: NdpProfile) -> Fleet:
    """Emulated DIMMs like those of a machine."""
    return Fleet(
        profile.dimms,
        spec=profile.speed_grade,
        ranks=profile.ranks,
        tflops=profile.tflops,
        buffer_kib=profile.buffer_kib,
        link_gbps=profile.link_gbps,
        mode=profile.sharing,
    )


class ExpertHomes:
    """The experts of all MoE layers, on the DIMMs of a fleet; the op's domains of DIMMs.

    Args:
        layers: [MoE layers].
        fleet: not used for these layers yet.
        spread: how what no single DIMM has lies over all: "striped", or "split" for a system whose DIMMs
            compute a slice each.
        arithmetic: "host", the CPU's kernels on the bytes in the DIMMs, so that results are the same to the
            bit; or "core", the emulated core's own order of sums.

    Attributes:
        fleet: as given. failed: DIMMs that did not do what they were told, and what they answered.

    Raises:
        InputError: experts in a format that an NDP core does not compute.
    """

    def __init__(
        self,
        layers: Sequence[ExpertLayer],
        fleet: Fleet,
        *,
        spread: str = "striped",
        arithmetic: str = "host",
    ) -> None:
        _check_formats(layers)
        self.fleet, self.failed = fleet, dict[int, str]()
        self._layers, self._spread = layers, spread
        for index, layer in enumerate(layers):
            homes = [(expert + index) % fleet.dimms for expert in range(layer.spec.experts)]
            place_layer(fleet, layer, homes, spread=spread, arithmetic=arithmetic)

    def lay_out(self, residencies: Sequence[Residency]) -> None:
        """Everything where a phase begins with it; what a failed DIMM has or should get stays where it is."""
        for index, residency in enumerate(residencies):
            for expert, target in enumerate(residency.layout.tolist()):
                self.carry_out(Relayout(index, expert, target))

    def carry_out(self, move: Relayout) -> bool:
        """Moves an expert; False where a DIMM failed, now or before, and the expert is where it was."""
        try:
            self._move(move.layer, move.expert, move.target)
        except NdpError as error:
            self.failed[error.dimm] = error.code
            return False
        return True

    def can_run(self, layer: int, expert: int, code: int) -> bool:
        """Whether an expert lies where a plan has it run, and no failed DIMM has a part of it."""
        lies = self.fleet.where(_ndp.expert_key(self._layers[layer].handle, expert))
        if lies.layout != "localized":
            return not self.failed and (code == SPLIT) == (lies.layout == "split")
        return lies.dimm not in self.failed and code == FIRST_DIMM + lies.dimm

    def _move(self, layer: int, expert: int, target: int) -> None:
        key = _ndp.expert_key(self._layers[layer].handle, expert)
        lies = self.fleet.where(key)
        if target == STRIPED:
            if lies.layout != self._spread:
                self.fleet.relayout(key, self._spread)
        elif lies.layout != "localized":
            self.fleet.relayout(key, "localized", dimm=target)
        elif lies.dimm != target:
            self.fleet.migrate(key, target)


def _check_formats(layers: Iterable[ExpertLayer]) -> None:
    """InputError for experts in a format that an NDP core does not compute."""
    formats = {layer.spec.weights for layer in layers} - set(_NUMBERS)
    if formats:
        raise InputError(
            expected=f"experts of {', '.join(_NUMBERS)} for an NDP core",
            got=", ".join(sorted(formats)),
            hint="--format bf16",
        )


def place_layer(
    fleet: Fleet, layer: ExpertLayer, homes: Sequence[int], *, spread: str = "localized", arithmetic: str
) -> None:
    """Expert e of a layer on DIMM homes[e], or on all if it is spread: from then on the op takes such plans.

    The packed bytes stay where they are, but for those of split experts.
    """
    _runtime.attach_fleet(layer.handle, fleet.native, arithmetic)
    spec = layer.spec
    nbytes = spec.layer_bytes // spec.experts
    for expert, home in enumerate(homes):
        fleet.place(
            _ndp.expert_key(layer.handle, expert),
            layer.memory[expert * nbytes : (expert + 1) * nbytes],
            home,
            layout=spread,
            hidden=spec.hidden,
            inter=spec.inter,
            number=spec.weights,
            group=spec.packing.group,
            activation=spec.activation,
            gated=spec.gated,
            bias=spec.bias,
            alpha=spec.alpha,
            limit=spec.limit,
        )
