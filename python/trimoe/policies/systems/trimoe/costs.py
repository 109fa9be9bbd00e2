"""TriMoE's cost tables: what the cost model says of experts, asked once and handed to the native planner.

The planner's loads are a base by layout (reading an expert's weights) and entries by tokens alone; DIMMs are
alike, so that one stands for all. A domain that the machine lacks takes for ever, and is thus no choice.
Tests hold the tables to `CostModel`, load by load.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trimoe._assign import Planner
from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED

__all__ = ["make_planner", "teach"]


def make_planner(cost: CostModel, **settings: Any) -> Planner:
    """A planner of a machine; it knows no number of tokens yet.

    settings: with_cpu, striped_on_dimm_up_to, greedy, rounds, pairs, gain, search_up_to, search_nodes, as the
    `Settings` of `csrc/assign/planner.h`.
    """
    res, places = cost.resources, range(cost.profile.n_dimms)
    channels = [res.channel_of(one) for one in places]
    dimms = [res.dimm(one) for one in places] if res.n_dimms else channels  # plain memory runs nothing
    planner = Planner(
        resources=len(res),
        gpu=res.gpu,
        cpu=res.cpu,
        link=res.link,
        dimm=dimms,
        channel=channels,
        **settings,
    )
    for layout in range(STRIPED, len(places)):
        if cost.profile.gpu:
            planner.set_base(GPU, layout, cost.fetch_load(layout))
        planner.set_base(CPU, layout, cost.host_load(cost.expert_bytes, layout))
    return planner


def teach(planner: Planner, cost: CostModel, counts: Ints) -> None:
    """Adds the numbers of tokens that a planner has not met."""
    res = cost.resources
    # Plain memory runs nothing: whatever is asked of it takes for ever.
    dimm, channel = res.dimm(0) if res.n_dimms else res.channel(0), res.channel_of(0)
    for tokens in sorted(set(counts[counts > 0].tolist())):
        if not planner.knows(tokens):
            home, gathered = (_load(cost, FIRST_DIMM, tokens, layout) for layout in (0, STRIPED))
            planner.set_tokens(
                tokens,
                gpu_ns=_load(cost, GPU, tokens)[res.gpu],
                cpu_striped_ns=_load(cost, CPU, tokens)[res.cpu],
                cpu_localized_ns=_load(cost, CPU, tokens, 0)[res.cpu],
                dimm_ns=home[dimm],
                channel_ns=home[channel],
                striped_dimm_ns=gathered[dimm],
                striped_channel_ns=gathered[channel],
                link_ns=gathered[res.link],
                other_dimm_ns=gathered[res.dimm(1)] if res.n_dimms > 1 else 0.0,
            )


def _load(cost: CostModel, domain: int, tokens: int, layout: int = STRIPED) -> Floats:
    """An expert that need not be fetched; for ever, on every resource, where the machine lacks the domain."""
    if domain in cost.domains:
        return cost.expert_load(domain, tokens, layout, resident=True)
    return np.full(len(cost.resources), np.inf)
