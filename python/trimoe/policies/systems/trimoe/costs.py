"""TriMoE's cost tables: what the cost model says of experts, asked once and handed to the native planner.

The planner's rows are a base by layout (reading an expert's weights) and entries by tokens alone; DIMMs are
alike, so that one stands for all. A domain that the machine lacks takes for ever, and is thus no choice.
Tests hold the tables to `Loads`, row by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from trimoe._assign import Planner
from trimoe.arrays import Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.policies.base.occupancy import Loads

__all__ = ["make_planner", "teach"]

_GPU_OPTION, _CPU_OPTION = 0, 1  # as csrc/assign/costs.h numbers them


def make_planner(cost: CostModel, **settings: Any) -> Planner:
    """A planner of a machine; it knows no number of tokens yet.

    settings: with_cpu, striped_on_dimm_up_to, greedy, rounds, pairs, gain, search_up_to, search_nodes, as the
    `Settings` of `csrc/assign/planner.h`.
    """
    res, places = cost.resources, range(cost.profile.n_dimms)
    channels = [res.channel_of(one) for one in places]
    dimms = [res.dimm(one) for one in places] if res.n_dimms else channels  # plain memory runs nothing
    planner = Planner(len(res), res.gpu, res.cpu, res.link, dimms, channels, **settings)
    loads = Loads(cost)
    for layout in range(STRIPED, len(places)):
        if cost.profile.gpu:
            planner.set_base(_GPU_OPTION, layout, loads.fetch(layout))
        planner.set_base(_CPU_OPTION, layout, loads.row(cost.host_parts(cost.expert_bytes, layout)))
    return planner


def teach(planner: Planner, cost: CostModel, counts: Ints) -> None:
    """Adds the numbers of tokens that a planner has not met, times in the order of `TokenCosts`."""
    res = cost.resources
    for tokens in sorted(set(counts[counts > 0].tolist())):
        if not planner.knows(tokens):
            home, gathered = (_parts(cost, FIRST_DIMM, tokens, layout) for layout in (0, STRIPED))
            planner.set_tokens(
                tokens,
                (
                    _parts(cost, GPU, tokens, resident=True)[res.gpu],
                    _parts(cost, CPU, tokens)[res.cpu],
                    _parts(cost, CPU, tokens, 0)[res.cpu],
                    home[res.dimm(0)],
                    home[res.channel_of(0)],
                    gathered[res.dimm(0)],
                    gathered[res.channel_of(0)],
                    gathered[res.link],
                    gathered[res.dimm(1)] if res.n_dimms > 1 else 0.0,
                ),
            )


def _parts(
    cost: CostModel, domain: int, tokens: int, layout: int = STRIPED, *, resident: bool = False
) -> Mapping[int, float]:
    """Nanoseconds by resource, of each for ever where the machine lacks the domain."""
    if domain not in cost.domains:
        return defaultdict(lambda: float("inf"))
    return dict(cost.expert_parts(domain, tokens, layout, resident=resident))
