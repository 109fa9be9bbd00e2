"""TriMoE's cost tables: what the cost model says of experts, asked once and handed to the native planner.

The planner's rows are a base by layout (reading an expert's weights) and entries by tokens alone; DIMMs are
alike, so that one stands for all. Tests hold the tables to `Loads`, row by row.
"""

from __future__ import annotations

from typing import Any

from trimoe._plan import Planner
from trimoe.arrays import Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.policies.loads import Loads

__all__ = ["make_planner", "teach"]

_GPU_OPTION, _CPU_OPTION = 0, 1  # as csrc/plan/costs.h numbers them


def make_planner(cost: CostModel, **settings: Any) -> Planner:
    """A planner of a machine with a GPU and DIMM-NDP; it knows no number of tokens yet.

    settings: with_cpu, striped_on_dimm_up_to, greedy, rounds, pairs, gain, search_up_to, search_nodes, as the
    `Settings` of `csrc/plan/planner.h`.
    """
    res = cost.resources
    places = range(res.n_dimms)
    dimms, channels = [res.dimm(one) for one in places], [res.channel_of(one) for one in places]
    planner = Planner(len(res), res.gpu, res.cpu, res.link, dimms, channels, **settings)
    loads = Loads(cost)
    for layout in range(STRIPED, res.n_dimms):
        planner.set_base(_GPU_OPTION, layout, loads.fetch(layout))
        planner.set_base(_CPU_OPTION, layout, loads.row(cost.host_parts(cost.expert_bytes, layout)))
    return planner


def teach(planner: Planner, cost: CostModel, counts: Ints) -> None:
    """Adds the numbers of tokens that a planner has not met, times in the order of `TokenCosts`."""
    res = cost.resources
    for tokens in sorted(set(counts[counts > 0].tolist())):
        if not planner.knows(tokens):
            home = dict(cost.expert_parts(FIRST_DIMM, tokens, 0))
            gathered = dict(cost.expert_parts(FIRST_DIMM, tokens))
            planner.set_tokens(
                tokens,
                (
                    dict(cost.expert_parts(GPU, tokens, resident=True))[res.gpu],
                    dict(cost.expert_parts(CPU, tokens))[res.cpu],
                    dict(cost.expert_parts(CPU, tokens, 0))[res.cpu],
                    home[res.dimm(0)],
                    home[res.channel_of(0)],
                    gathered[res.dimm(0)],
                    gathered[res.channel_of(0)],
                    gathered[res.link],
                    gathered[res.dimm(1)] if res.n_dimms > 1 else 0.0,
                ),
            )
