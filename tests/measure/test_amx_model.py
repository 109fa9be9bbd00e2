"""The cycle model's time of a call: cycles at this clock, shared by the threads."""

from __future__ import annotations

import pytest

from trimoe.hardware.roofline import Roofline
from trimoe.layer.expert_layer import LayerSpec
from trimoe.measure import amx_model as tile_model

SPEC = LayerSpec(4, 256, 128, "int8")


def roofline(isa: str = "amx", threads: int = 2, bandwidth_gbps: float = 20.0) -> Roofline:
    return Roofline(isa, threads, 1 << 20, (bandwidth_gbps,), {"int8": (100.0,)})


def test_threads_share_the_cycles_at_the_measured_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_model, "_clock_ghz", lambda: 2.5)
    rows = [40, 0, 3, 7]
    cycles = SPEC.native.tile_cycles(rows, 20.0 / 2 / 2.5)  # bytes by cycle of one thread
    assert tile_model.predicted_ns(SPEC, rows, roofline()) == pytest.approx(cycles / 2.5 / 2)
    slow, fast = (tile_model.predicted_ns(SPEC, rows, roofline(bandwidth_gbps=one)) for one in (1.0, 100.0))
    assert slow is not None and fast is not None and slow > fast


def test_nothing_is_predicted_where_no_tiles_are_used() -> None:
    assert tile_model.predicted_ns(SPEC, [1] * 4, roofline("avx512")) is None
    assert tile_model.predicted_ns(LayerSpec(4, 256, 128, "fp32"), [1] * 4, roofline()) is None
