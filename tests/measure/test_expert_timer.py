"""Timing one expert never meets weights that the caches still hold."""

from __future__ import annotations

import functools

import pytest

from trimoe.measure import calibration
from trimoe.measure.calibration import Scope
from trimoe.measure.expert_timer import ExpertTimer

TINY = Scope(("bf16", "int4"), ((64, 64), (256, 128)), (1, 4, 8), (2,), (128, 128, (4,)), 2)

QUICKLY = functools.partial(calibration.measure_roofline, repeats=2, seconds=0.005)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "QUICK", TINY)
    monkeypatch.setattr(calibration, "measure_roofline", QUICKLY)


def test_samples_do_not_meet_warm_weights() -> None:
    """Calls walk through all experts before one comes again."""
    timer = ExpertTimer("bf16", 512, 512)
    seen: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        forward = lambda hidden, ids, *_: seen.append(sorted(set(ids.flatten().tolist())))  # noqa: E731
        patch.setattr("trimoe.measure.expert_timer.moe_forward", forward)
        samples = timer.samples_ns([1, 3], 4, lambda: None)
    timer.close()
    assert {count: len(one) for count, one in samples.items()} == {1: 4, 3: 4}
    assert all(len(one) == 8 for one in seen) and len(seen) == 10
    assert len({expert for one in seen[:2] for expert in one}) == 16
    assert timer.caches_cold in (True, None)
