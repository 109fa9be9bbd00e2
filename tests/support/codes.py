"""A layer with every kind of domain: plans over all codes, and what computes them."""

from __future__ import annotations

from typing import Any

import torch

from support.cases import Problem
from trimoe import _ndp, _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT
from trimoe.layer.op import moe_forward
from trimoe.ndp import LAYOUTS, Fleet
from trimoe.runtime.expert_homes import place_layer

DIMMS = 4


def forward(problem: Problem, plan: torch.Tensor | list[int] | None = None) -> torch.Tensor:
    """The op; a list becomes a plan."""
    codes = torch.tensor(plan, dtype=torch.int32) if isinstance(plan, list) else plan
    return moe_forward(problem.hidden, problem.ids, problem.weights, problem.layer.handle, codes)


def key(problem: Problem, expert: int) -> int:
    """What the fleet calls an expert."""
    return _ndp.expert_key(problem.layer.handle, expert)


def lay(problem: Problem, layouts: list[str], arithmetic: str = "host") -> Fleet:
    """A fleet of the layer, expert e in layouts[e], its slot on DIMM e % DIMMS; GPU 1 is a stand-in."""
    fleet = Fleet(DIMMS)
    place_layer(
        fleet, problem.layer, [expert % DIMMS for expert in range(len(layouts))], arithmetic=arithmetic
    )
    for expert, layout in enumerate(layouts):
        fleet.relayout(key(problem, expert), layout)
    _runtime.attach_stand_in(problem.layer.handle, [GPU])
    return fleet


def codes_of(problem: Problem, seed: int) -> tuple[list[str], list[int]]:
    """Layouts and a plan, drawn: every expert where its layout allows; those without rows may be idle."""
    draw = torch.Generator().manual_seed(seed)

    def one_of(options: Any) -> Any:
        return options[int(torch.randint(len(options), (1,), generator=draw))]

    used = set(problem.ids.flatten().tolist())
    layouts, plan = [], []
    for expert in range(problem.case.experts):
        layout = one_of(LAYOUTS)
        on_dimms = {
            "localized": [FIRST_DIMM + expert % DIMMS],
            "striped": [FIRST_DIMM + dimm for dimm in range(DIMMS)],
            "split": [SPLIT],
        }[layout]
        code = one_of([CPU, GPU, one_of(on_dimms), one_of(on_dimms)])
        layouts.append(layout)
        plan.append(code if expert in used or one_of([True, False]) else IDLE)
    return layouts, plan
