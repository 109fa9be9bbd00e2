"""Timelines of a run: the clocks of the phases after each other, then this machine, each thread in order."""

from __future__ import annotations

from typing import Any

from support import deciders
from support.deciders import LAYERS, TIGHT, decided, passes
from trimoe.domains import CPU, FIRST_DIMM
from trimoe.runtime.machine_timeline import timelines
from trimoe.runtime.telemetry import Telemetry


def a_call(begun_ns: int, *parts: tuple[int, float]) -> Any:
    """Submitted after 5 ns, planned in 3, ended after 50; of (code, took)."""
    kinds = {CPU: "measured"}
    domains = [
        {"code": code, "kind": kinds.get(code, "emulated"), "experts": 1, "rows": 2} for code, _ in parts
    ]
    times = {"begun_ns": begun_ns, "plan_ns": 3, "submitted_ns": 5, "took_ns": 50}
    return {**times, "tokens": 4, "domains": domains}, dict(parts)


def test_work_begins_when_it_is_submitted_or_when_its_domain_is_free() -> None:
    telemetry = Telemetry([], keep=True)
    dimm = FIRST_DIMM + 2
    telemetry.history = [a_call(1000, (CPU, 40.0), (dimm, 100.0)), a_call(1060, (CPU, 30.0), (dimm, 7.0))]
    [here] = timelines([], telemetry)
    assert here.threads == ("policy", "op", "CPU (measured)", "DIMM 2 (emulated)")
    slices = [(thread, start, end) for thread, start, end, _, _ in here.slices]
    assert [one[1:] for one in slices if one[0] == 0] == [(0, 3), (60, 63)]
    assert [one[1:] for one in slices if one[0] == 1] == [(0, 50), (60, 110)]
    assert [one[1:] for one in slices if one[0] == 2] == [(5, 45), (65, 95)]
    assert [one[1:] for one in slices if one[0] == 3] == [(5, 105), (105, 112)], "not before it is free"


def test_phases_follow_each_other() -> None:
    model = deciders.load()
    attached = decided(model, "hermes", TIGHT, keep=True)
    for _ in range(2):
        passes(model, 2)
    attached.driver.finish()
    *predicted, here = timelines(attached.driver.engines, attached.telemetry)
    assert [one.title for one in predicted] == ["prefill, predicted", "decode, predicted"] * 2
    spans = []
    for one in (*predicted, here):
        slices, ends = list(one.slices), dict[int, float]()
        assert slices
        for thread, start, end, _, _ in slices:
            assert start >= ends.get(thread, 0.0) - 1e-6 and end >= start and thread < len(one.threads)
            ends[thread] = end
        spans.append(min(one[1] for one in slices))
    assert spans[:-1] == sorted(spans[:-1]) and spans[1] > 0
    assert sum(one[0] == 1 for one in slices) == 6 * LAYERS, "calls of this machine, the last process"
    assert len(attached.telemetry.history) == 6 * LAYERS
    attached.close()
