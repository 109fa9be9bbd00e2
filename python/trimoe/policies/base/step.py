"""What a policy gets: a layer's step after routing, and later what the layer took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints
from trimoe.placement import LayerPlan, Residency

__all__ = ["Foresight", "LayerDone", "LayerStep", "NoForesight"]


class Foresight(Protocol):
    """What the hidden states of a layer tell of later layers of the same step.

    On a machine the gates of those layers, applied ahead of time, or averages; in the simulator drawn at a
    stated accuracy.
    """

    def expected(self, layer: int, later: int) -> Floats | None:
        """[E], expected tokens of a later layer's experts as seen at `layer`; None where it is too far."""


class NoForesight:
    """Nothing is known of later layers."""

    def expected(self, layer: int, later: int) -> Floats | None:
        """None."""
        return None


@dataclass(frozen=True, eq=False)
class LayerStep:
    """One MoE layer in one step of some requests.

    phase: "prefill" or "decode"; both may be under way at once. step: of that phase, and layer: counted from
    0, MoE layers only. counts: [E], tokens of each expert. residencies: of all layers. now_ns: on the
    executor's clock; free_at_ns: [resources], when each will have done what it was given so far; idle_ns:
    [resources], what each had nothing to do for since the layer before. scores: [T, E], router probabilities
    of all experts, where the policy wants them and they are known; requests: [T], whom a token belongs to,
    and chosen: [T, K], the experts that it takes (-1: none), where it wants requests and they are known.
    """

    phase: str
    step: int
    layer: int
    counts: Ints
    residencies: Sequence[Residency]
    now_ns: float
    free_at_ns: Floats
    idle_ns: Floats
    foresight: Foresight
    scores: npt.NDArray[np.float32] | None = None
    requests: Ints | None = None
    chosen: Ints | None = None

    @classmethod
    def alone(
        cls,
        layer: int,
        counts: Ints,
        residencies: Sequence[Residency],
        n_resources: int,
        phase: str = "decode",
    ) -> LayerStep:
        """A question out of the blue: nothing has run before, nothing is foreseen."""
        none = np.zeros(n_resources)
        return cls(phase, 0, layer, counts, residencies, 0.0, none, none, NoForesight())

    @property
    def residency(self) -> Residency:
        """Of this layer."""
        return self.residencies[self.layer]

    def foreseen(self, later: int) -> Floats | None:
        """What this layer's hidden states tell of a later one, [E] tokens."""
        return self.foresight.expected(self.layer, later)


@dataclass(frozen=True, eq=False)
class LayerDone:
    """A layer's experts are done.

    took_ns: by domain, from when it was given its experts to when it had done them; predicted_ns: what the
    cost core said.
    """

    phase: str
    step: int
    layer: int
    plan: LayerPlan
    took_ns: Mapping[int, float]
    predicted_ns: Mapping[int, float]
