"""Helpers that many policies share: a plan from lists, homes of equal load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU, IDLE
from trimoe.placement import Keep, LayerPlan
from trimoe.policies.base.occupancy import Loads

__all__ = [
    "IdleTime",
    "balanced_homes",
    "busiest_first",
    "gpu_or_cpu_domain",
    "hits_and_misses",
    "placed",
    "split_makespans",
]


class IdleTime:
    """Time of a resource that nobody used and background work may have, in nanoseconds.

    What one layer left may be used in the next; of what is not, up to `most_ns` is saved.
    """

    def __init__(self, most_ns: float) -> None:
        self.most_ns, self.saved_ns = most_ns, 0.0

    def earn(self, idle_ns: float) -> None:
        """What a layer left."""
        self.saved_ns = max(idle_ns, min(self.most_ns, self.saved_ns + idle_ns))

    def spend(self, ns: float) -> bool:
        """Whether there is enough, which is then gone."""
        enough = self.saved_ns >= ns
        self.saved_ns -= ns if enough else 0.0
        return enough


def placed(
    experts: int,
    runs: Mapping[int, Sequence[int]],
    fetch: Sequence[int] = (),
    keep: Sequence[Keep] = (),
) -> LayerPlan:
    """The plan in which each domain runs its list of experts, in the list's order."""
    domain = np.full(experts, IDLE, np.int32)
    order: list[int] = []
    for where, ones in runs.items():
        domain[list(ones)] = where
        order.extend(ones)
    return LayerPlan(domain, tuple(order), tuple(fetch), tuple(keep))


def gpu_or_cpu_domain(cost: CostModel) -> int:
    """Who takes from the DIMMs what is hot: the GPU, or the CPU of a machine without one."""
    return GPU if cost.profile.gpu else CPU


def busiest_first(experts: Ints, counts: Ints) -> list[int]:
    """Experts by tokens, most first; of equals the lower number first. `experts` ascend."""
    found: list[int] = experts[np.argsort(-counts[experts], kind="stable")].tolist()
    return found


def hits_and_misses(counts: Ints, resident: npt.NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Active experts that GPU memory has, and those that it lacks, each busiest first."""
    active = np.nonzero(counts)[0]
    here = resident[active]
    return busiest_first(active[here], counts), busiest_first(active[~here], counts)


def split_makespans(loads: Loads, base: Floats, on_gpu: Floats, elsewhere: Floats) -> Floats:
    """[n + 1] makespans of a layer if the first k of n experts go to the GPU, k = 0 to n.

    base: [resources], of what is decided already. on_gpu, elsewhere: [n, resources], of each expert there.
    """
    none = np.zeros((1, len(loads.cost.resources)))
    first = np.concatenate([none, np.cumsum(on_gpu, axis=0)])
    rest = np.concatenate([np.cumsum(elsewhere[::-1], axis=0)[::-1], none])
    found: Floats = (base + first + rest).max(axis=1)
    return found


def balanced_homes(popularity: Floats, places: int) -> npt.NDArray[np.int16]:
    """A place for each expert: equally many on each, and their popularity as equal as a greedy pass makes it.

    popularity: [E]. The most popular first, each to the place with the least so far that has room.
    """
    experts = len(popularity)
    most = -(-experts // places)
    homes = np.zeros(experts, np.int16)
    load, held = np.zeros(places), np.zeros(places, np.int64)
    for one in np.argsort(-popularity, kind="stable").tolist():
        free = np.nonzero(held < most)[0]
        home = int(free[np.lexsort((held[free], load[free]))[0]])
        homes[one] = home
        load[home] += popularity[one]
        held[home] += 1
    return homes
