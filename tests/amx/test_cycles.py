"""The cycle model: by hand where a hand can, and never better than its own rooflines."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import pytest

from support.amx import program
from trimoe.hardware.cpu import features
from trimoe.layer.expert_layer import LayerSpec

pytestmark = pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64")

# Format, group, rows in 8 bits.
FORMATS = [("bf16", 0, 0), ("int8", 0, 1), ("int4", 32, 1), ("int4", 64, 1), ("int4", 128, 1)]
FORMATS += [("int4", 32, 0), ("int4", 128, 0), ("fp8", 128, 0), ("mxfp4", 32, 0)]


@dataclass(frozen=True)
class Prediction:
    peak: float
    compute: float
    memory: float
    cycles: float


def predict(*cases: tuple[str, int, int, int, int, int, float]) -> list[Prediction]:
    """Cases are (format, group, int8_rows, rows, k, panels, bytes_per_cycle)."""
    text = "".join(" ".join(map(str, case)) + "\n" for case in cases)
    done = subprocess.run([program("amx_predict")], input=text, capture_output=True, text=True, check=True)
    found = [Prediction(*map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == len(cases)
    return found


def test_the_model_predicts_what_one_counts_by_hand() -> None:
    bf16, int8, few, grouped = predict(
        ("bf16", 0, 0, 32, 2048, 1, 0),
        ("int8", 0, 1, 16, 512, 3, 0),
        ("bf16", 0, 0, 1, 2048, 2, 10.0),
        ("int4", 128, 1, 32, 2048, 1, 0),
    )
    # 32 x 2048 x 32 multiply-adds at 512 a cycle; 64 steps: four loads from L2 over 64 cycles of multiplying.
    assert bf16.peak == 4096
    assert bf16.cycles == pytest.approx(64 * (4 * 21 + 0.18 * 64 + 2) + 120)
    # 8 steps; the rows of A, 8 KiB, stay in L1: one load of 8 and two of 21 over 32 cycles of multiplying.
    assert int8.peak == 16 * 512 * 3 * 32 / 1024
    assert int8.cycles == pytest.approx(3 * (8 * (50 + 0.18 * 32 + 2) + 120 + 20 + 16 * 7.5))
    # One row is a matter of memory: 2048 x 64 columns x 2 bytes.
    assert few.memory == few.cycles == 2048 * 64 * 2 / 10
    # 16 groups of two steps; expanding costs a cycle for each of 1024 lines.
    assert grouped.cycles == pytest.approx(32 * (84 + 0.18 * 64 + 2) + 120 + 16 * (20 + 32 * 7.5) + 1024)


@pytest.mark.parametrize(("weights", "group", "int8_rows"), FORMATS)
def test_nothing_beats_the_rooflines_and_more_work_takes_longer(
    weights: str, group: int, int8_rows: int
) -> None:
    sizes = [(rows, k) for rows in (1, 4, 5, 16, 17, 32, 33, 512) for k in (128, 768, 4096)]
    found = predict(*((weights, group, int8_rows, rows, k, 4, 8.0) for rows, k in sizes))
    for one in found:
        assert one.cycles == max(one.compute, one.memory) and one.compute >= one.peak
    by_size = dict(zip(sizes, found, strict=True))
    for rows in (1, 5, 16, 512):
        assert by_size[rows, 128].cycles < by_size[rows, 768].cycles < by_size[rows, 4096].cycles
    for k in (128, 768, 4096):
        assert (
            by_size[5, k].compute <= by_size[17, k].compute < by_size[33, k].compute < by_size[512, k].compute
        )


def test_bandwidth_counts_until_computing_is_the_limit() -> None:
    slow, fast, endless = predict(*(("bf16", 0, 0, 32, 2048, 1, rate) for rate in (2.0, 4.0, 1e9)))
    assert slow.cycles == 2 * fast.cycles
    assert endless.cycles == endless.compute < fast.cycles


def test_a_layer_is_the_sum_of_its_gemms() -> None:
    spec = LayerSpec(experts=4, hidden=200, inter=100, weights="int4", group=64)
    gate_up, down = (
        predict(*(("int4", 64, 1, rows, k, panels, 3.0) for rows in (7, 40)))
        for k, panels in ((200, 7), (100, 7))
    )
    expected = sum(one.cycles for one in (*gate_up, *down))
    assert spec.native.tile_cycles([7, 0, 40, 0], 3.0) == pytest.approx(expected)
    assert spec.native.tile_cycles([0, 0, 0, 0], 3.0) == 0
