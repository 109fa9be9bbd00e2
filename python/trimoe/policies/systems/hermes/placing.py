"""Where Hermes puts experts (arXiv 2502.16963, section IV-B): hot on the GPU, cold on DIMMs of equal load.

The paper's program, min sum over layers of max(T_GPU, max over DIMMs of T_j), falls apart into one for each
layer once GPU memory is dealt out in slots. Even then 160 experts and 16 alike DIMMs keep a solver busy for
minutes, for the last fraction of a percent: here HiGHS decides which experts are hot, against the mean of
the DIMMs, and the longest-first rule deals the others out (at most 4/3 of the best).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Bools, Floats, Ints
from trimoe.policies.base.solver import Program

__all__ = ["HermesPlacement", "balanced", "place_layer"]

# Of branch and bound, of one layer; a count, so that plans do not depend on how busy this machine is.
_MOST_NODES = 200
_GOOD_ENOUGH = 1e-3


@dataclass(frozen=True, eq=False)
class HermesPlacement:
    """hot: [E] on the GPU. home: [E] DIMM of every expert, also of those (their copy stays).

    bound_ns: no placement of the layer takes less. ns: what this one takes. proven: whether the solver ended
    within its limit of nodes; where it did not, the best that it had found counts.
    """

    hot: Bools
    home: Ints
    ns: float
    bound_ns: float
    proven: bool


def place_layer(
    gpu_ns: Floats, dimm_ns: Floats, n_dimms: int, slots: int | None, *, sync_ns: float = 0.0
) -> HermesPlacement:
    """Places one layer's experts.

    Args:
        gpu_ns: [E], expected time of each on the GPU in a step.
        dimm_ns: [E], on a DIMM.
        n_dimms: number of DIMMs.
        slots: experts that GPU memory has room for; None: no limit, where the CPU computes in its place.
        sync_ns: that results take to the GPU, once each way.

    Raises:
        InputError: HiGHS is not installed.
    """
    hot, bound_ns, proven = _hot(gpu_ns, dimm_ns, n_dimms, slots, 2 * sync_ns)
    home = np.zeros(len(hot), np.int64)
    cold = np.nonzero(~hot)[0]
    loads = np.zeros(n_dimms)
    home[cold] = balanced(dimm_ns[cold], loads)
    ns = max(float(gpu_ns[hot].sum()) + 2 * sync_ns, float(loads.max()))
    # Hot ones may cool down: their homes are balanced among themselves.
    warm = np.nonzero(hot)[0]
    home[warm] = balanced(dimm_ns[warm], np.zeros(n_dimms))
    return HermesPlacement(hot, home, ns, bound_ns, proven)


def balanced(ns: Floats, loads: Floats) -> Ints:
    """A DIMM for each expert, the longest first, each on the one with the least load, which grows."""
    home = np.zeros(len(ns), np.int64)
    for one in np.argsort(-ns, kind="stable").tolist():
        home[one] = int(np.argmin(loads))
        loads[home[one]] += ns[one]
    return home


def _hot(
    gpu_ns: Floats, dimm_ns: Floats, n_dimms: int, slots: int | None, sync_ns: float
) -> tuple[Bools, float, bool]:
    n = len(gpu_ns)
    if slots is not None and slots >= n:
        return np.ones(n, np.bool_), 0.0, True
    if slots is not None and slots <= 0:
        whole = float(dimm_ns.sum()) / n_dimms
        return np.zeros(n, np.bool_), max(whole, float(dimm_ns.max(initial=0.0))), True
    scale = max(float(dimm_ns.max()), 1.0)
    program = Program()
    longest = program.variable(low=sync_ns / scale, cost=1.0)
    hot = [program.variable(high=1.0, whole=True) for _ in range(n)]
    program.row(
        {longest: -1.0, **{one: float(ns) / scale for one, ns in zip(hot, gpu_ns, strict=True)}},
        high=-sync_ns / scale,
    )
    mean = {one: -float(ns) / scale / n_dimms for one, ns in zip(hot, dimm_ns, strict=True)}
    program.row({longest: -1.0, **mean}, high=-float(dimm_ns.sum()) / scale / n_dimms)
    for one, ns in zip(hot, dimm_ns.tolist(), strict=True):
        # A cold expert keeps its DIMM at least as long as itself.
        program.row({longest: -1.0, one: -ns / scale}, high=-ns / scale)
    if slots is not None:
        program.row(dict.fromkeys(hot, 1.0), high=float(slots))
    found = program.solve(max_nodes=_MOST_NODES, gap=_GOOD_ENOUGH)
    if found is None:  # no point within the limit: the hottest, as many as there is room for
        picks, gains_ns = np.zeros(n, np.bool_), dimm_ns / n_dimms - gpu_ns
        picks[np.argsort(-gains_ns, kind="stable")[:slots]] = True
        return picks if slots is not None else gains_ns > 0, 0.0, False
    return found.values[hot[0] :] > 0.5, found.bound * scale, found.optimal
