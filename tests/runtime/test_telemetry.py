"""Records of calls, counted by domain: measured, emulated and modelled times stay apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import deciders
from trimoe import _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT
from trimoe.hf.stored_experts import stored_experts
from trimoe.layer.op import moe_forward
from trimoe.runtime.telemetry import Telemetry, domain_name


def a_record(*parts: tuple[int, str, float, int]) -> Any:
    """Of (code, kind, took, rows); two experts each, the host computed 7 rows."""
    domains = [
        {"code": code, "experts": 2, "rows": rows, "kind": kind, "took_ns": took, "host_ns": 999}
        for code, kind, took, rows in parts
    ]
    return {"layer": 0, "host_rows": 7, "submitted_ns": 55, "domains": domains}


PREDICTED = {CPU: 10.0, GPU: 20.0, FIRST_DIMM: 30.0, FIRST_DIMM + 1: 40.0}


def test_each_kind_has_its_own_clock() -> None:
    telemetry = Telemetry([], keep=False)
    parts = (
        (CPU, "measured", 100.0, 1),
        (GPU, "modelled", 0.0, 2),
        (FIRST_DIMM + 1, "emulated", 300.0, 3),
        (SPLIT, "emulated", 400.0, 1),
    )
    took = telemetry.took_ns(a_record(*parts), PREDICTED)
    assert took == {CPU: 100.0, GPU: 20.0, FIRST_DIMM + 1: 300.0, SPLIT: 400.0}
    telemetry.took_ns(a_record(*parts[:2]), PREDICTED)
    uses = telemetry.uses
    assert {code: (use.kind, use.experts, use.tokens, use.predicted_ns) for code, use in uses.items()} == {
        CPU: ("measured", 4, 2, 20.0),
        GPU: ("modelled", 4, 4, 40.0),
        FIRST_DIMM + 1: ("emulated", 2, 3, 40.0),
        SPLIT: ("emulated", 2, 1, 40.0),
    }
    assert [uses[code].took_ns for code in (CPU, GPU, SPLIT)] == [200.0, 40.0, 400.0]
    assert [uses[code].computed_tokens for code in (CPU, GPU, SPLIT)] == [14, 0, 0]
    assert not telemetry.history and list(telemetry.to_submit_ns) == [55, 55]
    telemetry.reset()
    assert not telemetry.uses and not telemetry.to_submit_ns


def test_a_call_that_failed_counts_nothing() -> None:
    telemetry = Telemetry([], keep=True)
    assert telemetry.took_ns(None, PREDICTED) == PREDICTED
    assert not telemetry.uses and not telemetry.history


def test_the_newest_record_of_a_layer_counts() -> None:
    model = deciders.load()
    modules = stored_experts(model)
    telemetry = Telemetry([module.handle for module in modules], keep=False)

    def call(layer: int, tokens: int) -> None:
        ids = torch.zeros(tokens, 4, dtype=torch.long)
        hidden = torch.ones(tokens, 160, dtype=torch.bfloat16)
        moe_forward(hidden, ids, torch.ones(tokens, 4), modules[layer].handle)

    for layer, tokens in ((0, 1), (1, 2), (1, 3), (2, 4)):
        call(layer, tokens)
    found = telemetry.newest(1)
    assert found is not None and found["tokens"] == 3
    assert telemetry.newest(1) is None and telemetry.newest(2) is None, "all before it are forgotten"
    call(2, 5)
    assert telemetry.newest(1) is None
    for module in modules:
        _runtime.set_recorder(module.handle, None)


@pytest.mark.parametrize(
    ("code", "name"),
    [(CPU, "CPU"), (GPU, "GPU"), (SPLIT, "all DIMMs"), (FIRST_DIMM, "DIMM 0"), (FIRST_DIMM + 15, "DIMM 15")],
)
def test_names(code: int, name: str) -> None:
    assert domain_name(code) == name
