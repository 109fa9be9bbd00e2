"""Random layers to try policies on: seeded, skewed as routing is, with layouts and residents of all kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.arrays import Ints
from trimoe.cost import CostModel
from trimoe.domains import STRIPED
from trimoe.errors import InputError, nearest
from trimoe.hardware.profile import Profile
from trimoe.placement import Residency

__all__ = ["LAYOUTS", "Instance", "draw_instances", "instance_cost", "machine_of"]

LAYOUTS = ("mixed", "localized", "striped")

_MOST_TOKENS = 768  # of one expert
_HOST_BYTES = 2**44  # room for any model


@dataclass(frozen=True, eq=False)
class Instance:
    """One layer in one step. counts: [E] tokens."""

    counts: Ints
    state: Residency


def instance_cost(
    profile: Profile, model: str, *, experts: int, dimms: int = 0, weights: str = "bf16"
) -> CostModel:
    """Costs of a model cut to that many experts a layer, on a machine cut to that many DIMMs.

    dimms: on as many channels, one each, unless the machine has that many as it is; 0: as the profile.

    Raises:
        InputError: DIMMs of a machine that has none with a core, or as for `CostModel`.
    """
    shape = load_model_shape(model)
    moe = dataclasses.replace(shape.moe, experts=experts, topk=min(shape.topk, experts))
    return CostModel(machine_of(profile, dimms), dataclasses.replace(shape, moe=moe), weights)


def machine_of(profile: Profile, dimms: int, *, per_channel: int = 1) -> Profile:
    """A machine cut to that many DIMMs, with room for any model.

    dimms: as for `instance_cost`, so many on a channel.

    Raises:
        InputError: DIMMs of a machine that has none with a core.
    """
    values: dict[str, float | str] = {"memory.capacity_bytes": _HOST_BYTES}
    if dimms and profile.ndp is None:
        raise InputError(
            expected=f"--dimms 0 on {profile.name}, whose memory has no cores",
            got=str(dimms),
            hint="--hardware h100-8470-ndp16",
        )
    if dimms and profile.ndp is not None and dimms != profile.ndp.dimms:
        values["memory.channels"] = dimms // per_channel
        values |= {"ndp.dimms_per_channel": per_channel, "ndp.dimms": dimms}
    return profile.with_values(values, "to try policies on")


def draw_instances(
    cost: CostModel, number: int, seed: int, *, fewest: int = 2, layouts: str = "mixed"
) -> Iterator[Instance]:
    """Layers of `fewest` to all experts active; the same for the same arguments.

    Tokens are log-normal about 2 to 128 with a deviation of 0.3 to 1.8; up to half of the active experts are
    in GPU memory, the busy ones more often. On machines with DIMM-NDPs the layouts are "mixed" (a share of
    the experts, anything from none to all, lies on random DIMMs; all others are striped), "localized" (all
    on random DIMMs) or "striped"; on others all are striped.

    Raises:
        InputError: layouts of another name.
    """
    if layouts not in LAYOUTS:
        raise InputError(
            expected=f"layouts {' or '.join(LAYOUTS)}", got=layouts, hint=nearest(layouts, LAYOUTS)
        )
    experts = cost.shape.moe.experts
    for index in range(number):
        random = np.random.default_rng((seed, index))
        active = random.permutation(experts)[: random.integers(min(fewest, experts), experts + 1)]
        middle, spread = random.uniform(np.log(2), np.log(128)), random.uniform(0.3, 1.8)
        counts = np.zeros(experts, np.int64)
        tokens = np.ceil(np.exp(random.normal(middle, spread, len(active))))
        counts[active] = np.clip(tokens, 1, _MOST_TOKENS)
        layout = np.full(experts, STRIPED, np.int16)
        if cost.resources.n_dimms:
            share = {"mixed": random.random(), "localized": 1.0, "striped": 0.0}[layouts]
            localized = random.random(experts) < share
            homes = random.integers(0, cost.resources.n_dimms, experts)
            layout[localized] = homes[localized]
        slots = int(random.integers(0, len(active) // 2 + 1)) if cost.profile.gpu else 0
        # Drawn by tokens, as what a cache holds: likely, not certain to be busy.
        keys = random.exponential(size=experts) / (counts + 1.0)
        resident = np.argsort(keys, kind="stable")[:slots]
        yield Instance(counts, Residency(experts, slots=slots, resident=resident, layout=layout))
