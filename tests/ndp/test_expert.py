"""The time of an expert on a DIMM: against the closed form over a sweep, and where one resource decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from trimoe.errors import InputError
from trimoe.ndp import expert_time, spec, specs
from trimoe.ndp.expert import WEIGHT_BYTES

SHAPES = [(2048, 768), (4096, 1408), (5120, 1536)]
SWEEP = [
    *itertools.product([(2048, 768)], [1, 3, 16], [1, 2, 4], WEIGHT_BYTES, [0.25, 1.0]),
    *itertools.product(SHAPES[1:], [1, 9], [2, 4], ["bf16", "int4"], [0.5]),
]


@pytest.mark.parametrize("grade", [one.name for one in specs()])
@pytest.mark.parametrize(("shape", "tokens", "ranks", "dtype", "tflops"), SWEEP)
def test_the_closed_form_is_within_three_percent(
    shape: tuple[int, int], tokens: int, ranks: int, dtype: str, tflops: float, grade: str
) -> None:
    found = expert_time(*shape, tokens, spec=grade, dtype=dtype, ranks=ranks, tflops=tflops)
    assert found.total_ns == pytest.approx(found.closed_form_ns, rel=0.03)
    phases = (found.command_ns, found.broadcast_ns, found.gate_up_ns, found.down_ns)
    assert found.total_ns == pytest.approx(sum(phases) + found.reduce_ns + found.result_ns)
    assert found.gate_up_ns == pytest.approx(2 * found.down_ns, rel=0.2)  # a refresh falls into one of them
    weights = 3 * shape[0] * shape[1] * WEIGHT_BYTES[dtype]
    assert weights <= found.weight_bytes <= weights + 3 * ranks * 2 * 64


def test_the_published_expert_takes_what_was_published() -> None:
    """DeepSeek-V2's, 47 MB, on four ranks of 4800B: 0.336 ms of stream."""
    found = expert_time(5120, 1536, 1)
    assert found.gate_up_ns + found.down_ns == pytest.approx(0.336e6, rel=0.01)
    energy = spec("4800B").energy_nj
    # 47 MB in bursts of 64 bytes and rows of 4 KiB; a refresh every 3.9 us in eight streams.
    bursts, rows, refreshes = 737_280, 11_520, 8 * round(found.total_ns / 3900)
    expected = bursts * energy["read"] + rows * energy["activate"] + refreshes * energy["refresh"]
    assert found.dram_nj == pytest.approx(expected, rel=0.01)
    assert found.channel_nj == pytest.approx(2 * 5120 * 2 * 8 * 0.022)


def test_every_pass_costs_energy_again() -> None:
    wide, narrow = (expert_time(2048, 768, 16, buffer_kib=buffer_kib) for buffer_kib in (1024, 64))
    assert narrow.dram_nj == pytest.approx(narrow.passes * wide.dram_nj, rel=0.05)


def test_what_decides() -> None:
    """Few tokens: the bandwidth of the ranks; many: the core; a small buffer: both, again and again."""
    one, four = (expert_time(2048, 768, 1, ranks=ranks).total_ns for ranks in (1, 4))
    assert one == pytest.approx(4 * four, rel=0.05)
    slow, fast = (expert_time(2048, 768, 16, tflops=tflops).total_ns for tflops in (0.25, 0.5))
    assert slow == pytest.approx(2 * fast, rel=0.05)
    wide, narrow = (
        expert_time(2048, 768, 16, tflops=100.0, buffer_kib=buffer_kib) for buffer_kib in (1024, 64)
    )
    assert wide.passes == 1 and narrow.passes == 4
    assert narrow.gate_up_ns == pytest.approx(narrow.passes * wide.gate_up_ns, rel=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda: expert_time(0, 768, 1),
        lambda: expert_time(2048, 768, 0),
        lambda: expert_time(2048, 768, 1, dtype="fp8"),
        lambda: expert_time(2048, 768, 1, spec="1600"),
        lambda: expert_time(2048, 768, 1, ranks=0),
        lambda: expert_time(2048, 768, 1, tflops=0.0),
        lambda: expert_time(2048, 768, 1, buffer_kib=1),
        lambda: expert_time(2048, 768, 1, buffer_kib=2**60),
        lambda: expert_time(7168, 2048, 100_000),
    ],
)
def test_bad_input_is_an_input_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got ."):
        call()
