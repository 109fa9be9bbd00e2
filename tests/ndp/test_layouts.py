"""Experts that lie on many DIMMs, that move, that share a rank with the host; the sweep over assumptions."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp import contention, expert_time, relayout_time, ridge_tokens, spec, specs, sweep_expert
from trimoe.ndp.expert import WEIGHT_BYTES

# DeepSeek-V2, Qwen3-235B, GLM-4.5-Air.
REAL_SHAPES = [(5120, 1536), (4096, 1536), (4096, 1408)]
STREAM_GBPS = 35.16  # of a rank of 4800B, as published


@pytest.mark.parametrize(("shape", "tokens", "ranks"), list(itertools.product(REAL_SHAPES, [1, 16], [1, 4])))
def test_real_shapes_are_within_three_percent(shape: tuple[int, int], tokens: int, ranks: int) -> None:
    found = expert_time(*shape, tokens, ranks=ranks)
    assert found.total_ns == pytest.approx(found.closed_form_ns, rel=0.03)
    assert found.weight_bytes == 3 * shape[0] * shape[1] * 2
    for dimms, link_gbps in ((2, 12.5), (16, 25.0), (16, 1000.0)):
        striped = expert_time(*shape, tokens, ranks=ranks, layout="striped", dimms=dimms, link_gbps=link_gbps)
        assert striped.total_ns == pytest.approx(striped.closed_form_ns, rel=0.03)
        assert striped.weight_bytes + striped.link_bytes == found.weight_bytes


@pytest.mark.parametrize("grade", [one.name for one in specs()])
@pytest.mark.parametrize(
    ("dimms", "tokens", "ranks", "dtype", "link_gbps"),
    list(itertools.product([2, 8], [1, 3, 16], [1, 4], WEIGHT_BYTES, [12.5, 200.0])),
)
def test_striped_experts_are_within_three_percent(
    dimms: int, tokens: int, ranks: int, dtype: str, link_gbps: float, grade: str
) -> None:
    core = {"spec": grade, "dtype": dtype, "ranks": ranks}
    found = expert_time(2048, 768, tokens, **core, layout="striped", dimms=dimms, link_gbps=link_gbps)
    assert found.total_ns == pytest.approx(found.closed_form_ns, rel=0.03)
    streamed = found.gate_up_ns + found.down_ns + found.gather_ns
    others = found.command_ns + found.broadcast_ns + found.reduce_ns + found.result_ns
    assert found.total_ns == pytest.approx(streamed + others)
    # Every byte is read once a pass, on whatever DIMM, and all but a part crosses the link.
    whole = 3 * 2048 * 768 * WEIGHT_BYTES[dtype]
    assert whole <= found.weight_bytes + found.link_bytes <= whole + 3 * ranks * 2 * 64 * dimms
    assert found.link_bytes == (dimms - 1) * found.weight_bytes
    assert found.link_nj == pytest.approx(found.passes * found.link_bytes * 8 * 1.17e-3)
    localized = expert_time(2048, 768, tokens, **core)
    assert found.passes == localized.passes
    bursts = found.passes * (found.weight_bytes + found.link_bytes) / 64
    assert 1 < found.dram_nj / (bursts * spec(grade).energy_nj["read"]) < 1.1  # rows and refreshes


def test_what_decides_of_a_striped_expert() -> None:
    """The link where it is slow, else the core or the DIMM's own ranks; and always the first bytes."""
    timing, clock_ns = spec("4800B").timing_clocks, spec("4800B").clock_ns
    command_ns = (timing["nCWL"] + timing["nBL"] + 17) * clock_ns
    row_ns = (timing["nRCD"] + timing["nCL"] + timing["nBL"]) * clock_ns
    slow = expert_time(2048, 768, 1, layout="striped", link_gbps=1.0)
    streamed = slow.gate_up_ns + slow.down_ns + slow.gather_ns
    assert streamed == pytest.approx(slow.link_bytes / 1.0 + command_ns + row_ns + 4096 / 1.0)
    fast = expert_time(2048, 768, 1, layout="striped", link_gbps=1e6)
    assert fast.gather_ns == pytest.approx(command_ns + row_ns, abs=0.01)
    alone = expert_time(2048, 768, 1, tflops=100.0)
    wide = expert_time(2048, 768, 1, tflops=100.0, layout="striped", dimms=4, link_gbps=1e6)
    assert wide.gate_up_ns + wide.down_ns == pytest.approx((alone.gate_up_ns + alone.down_ns) / 4, rel=0.05)


def test_striped_over_one_is_localized() -> None:
    assert expert_time(2048, 768, 3, layout="striped", dimms=1) == expert_time(2048, 768, 3)
    assert expert_time(2048, 768, 3).gather_ns == 0


@pytest.mark.parametrize("shape", REAL_SHAPES)
def test_a_relayout_moves_all_bytes_but_those_that_stay(shape: tuple[int, int]) -> None:
    moved, whole = (relayout_time(*shape, migrate=migrate) for migrate in (False, True))
    bytes_ = 3 * shape[0] * shape[1] * 2
    assert moved.weight_bytes == whole.weight_bytes == whole.link_bytes == bytes_
    assert moved.link_bytes == bytes_ * 15 // 16
    for one in (moved, whole):
        assert one.link_closed_form_ns == pytest.approx(one.link_bytes / 25)
        assert one.link_ns == pytest.approx(one.link_closed_form_ns, rel=0.01)
        assert one.link_ns > one.link_closed_form_ns  # the first row
        assert one.host_closed_form_ns == pytest.approx(bytes_ / STREAM_GBPS, rel=0.001)
        assert one.host_ns == pytest.approx(one.host_closed_form_ns, rel=0.01)
        assert one.link_nj == pytest.approx(one.link_bytes * 8 * 1.17e-3)
        assert one.channel_nj == pytest.approx(2 * bytes_ * 8 * 22e-3)


def test_the_published_relayout_takes_what_was_published() -> None:
    """DeepSeek-V2's over 16 DIMMs: 1.77 ms by link, 1.34 ms by the host."""
    found = relayout_time(5120, 1536)
    assert (found.link_ns * 1e-6, found.host_ns * 1e-6) == pytest.approx((1.77, 1.34), abs=0.005)
    fast = relayout_time(5120, 1536, link_gbps=1e6)  # then the DIMM's own ranks decide
    assert fast.link_ns == pytest.approx(found.link_bytes / (4 * STREAM_GBPS), rel=0.01)
    assert fast.link_ns == pytest.approx(fast.link_closed_form_ns, rel=0.01)


@pytest.mark.parametrize("mode", ["exclusive", "concurrent"])
@pytest.mark.parametrize(
    ("grade", "host_gbps"), [("4800B", 2.0), ("4800B", 15.0), ("4800B", 30.0), ("5600B", 15.0)]
)
def test_a_host_beside_takes_its_share_of_the_stream(mode: str, host_gbps: float, grade: str) -> None:
    case = {"spec": grade, "tflops": 100.0}
    alone = expert_time(2048, 768, 1, **case)
    found = expert_time(2048, 768, 1, **case, mode=mode, host_gbps=host_gbps)
    share = contention(grade, mode, ranks=1, host_gbps=host_gbps).in_step_share
    assert found.stream_share == share < 1 == alone.stream_share
    slowed = (found.gate_up_ns + found.down_ns) * share
    assert slowed == pytest.approx(alone.gate_up_ns + alone.down_ns, rel=0.01)
    assert found.broadcast_ns == alone.broadcast_ns and found.dram_nj == alone.dram_nj
    assert found.total_ns == pytest.approx(found.closed_form_ns, rel=0.05)


@pytest.mark.parametrize("mode", ["exclusive", "concurrent"])
def test_a_host_that_reads_nothing_or_a_core_that_is_slow(mode: str) -> None:
    assert expert_time(2048, 768, 1, mode=mode) == expert_time(2048, 768, 1)
    slow, beside = (expert_time(2048, 768, 16, mode=mode, host_gbps=gbps) for gbps in (0.0, 3.0))
    assert beside.total_ns == pytest.approx(slow.total_ns, rel=0.001)


def test_shares_by_formula() -> None:
    """u of a rank's bandwidth: what is left of it, of turns at least every other one."""
    half = STREAM_GBPS / 2
    assert _ndp.closed_form_share("4800B", "concurrent", half) == pytest.approx(0.5 * 0.97, rel=0.001)
    for gbps in (half, 0.9 * 2 * half):
        turns = _ndp.closed_form_share("4800B", "exclusive", gbps)
        assert turns == pytest.approx(0.5 / (1 + (39 + 39 + 63) / 9375), rel=0.001)
    few = _ndp.closed_form_share("4800B", "exclusive", half / 2)
    assert few == pytest.approx(0.75 / (1 + (39 + 39 + 63) / 9375), rel=0.001)


def test_ridges_are_those_that_were_published() -> None:
    """Published, for four ranks of 4800B."""
    found = [ridge_tokens(tflops=tflops) for tflops in (0.26, 0.5, 1.0)]
    assert found == pytest.approx([1.8, 3.6, 7.1], abs=0.05)
    assert ridge_tokens(dtype="int8") == pytest.approx(found[1] / 2)


def test_the_sweep_has_every_case_once() -> None:
    found = sweep_expert(2048, 768, dtype="int8")
    assert len(found.localized) == 4 * 3 * 16 and len(found.striped) == 3 * len(found.localized)
    assert len(set(found.localized + found.striped)) == len(found.localized) + len(found.striped)
    for row in found.localized:
        assert row.link_gbps is None
        assert row.total_ns == pytest.approx(row.closed_form_ns, rel=0.03)
        core = {"tflops": row.tflops, "ranks": row.ranks}
        assert row.total_ns == expert_time(2048, 768, row.tokens, dtype="int8", **core).total_ns
    by_case = {(row.tflops, row.ranks, row.link_gbps, row.tokens): row.total_ns for row in found.striped}
    wanted = expert_time(2048, 768, 5, dtype="int8", tflops=0.26, ranks=2, layout="striped", link_gbps=12.5)
    assert by_case[0.26, 2, 12.5, 5] == wanted.total_ns
    ridges = {(one.tflops, one.ranks): one.ridge_tokens for one in found.ridge}
    assert ridges[0.5, 4] == ridge_tokens(dtype="int8")
    assert [one.link_gbps for one in found.relayout] == [12.5, 25.0, 50.0]
    assert found.relayout[1].time == relayout_time(2048, 768, dtype="int8")


@pytest.mark.parametrize(
    "call",
    [
        lambda: expert_time(2048, 768, 1, layout="scattered"),
        lambda: expert_time(2048, 768, 1, layout="striped", dimms=0),
        lambda: expert_time(2048, 768, 1, layout="striped", link_gbps=0.0),
        lambda: expert_time(2048, 768, 1, layout="striped", link_gbps=float("nan")),
        lambda: expert_time(2048, 768, 1, mode="host"),
        lambda: expert_time(2048, 768, 1, mode="host", host_gbps=1.0),
        lambda: expert_time(2048, 768, 1, mode="shared"),
        lambda: expert_time(2048, 768, 1, host_gbps=-1.0),
        lambda: expert_time(2048, 768, 1, host_gbps=36.0),
        lambda: expert_time(2048, 768, 1, host_gbps=float("nan")),
        lambda: relayout_time(2048, 768, dimms=1),
        lambda: relayout_time(0, 768),
        lambda: relayout_time(2048, 768, dtype="fp8"),
        lambda: relayout_time(2048, 768, link_gbps=-1.0),
        lambda: ridge_tokens(ranks=0),
        lambda: ridge_tokens(spec="1600"),
        lambda: sweep_expert(2048, 0),
    ],
)
def test_bad_input_is_an_input_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got ."):
        call()
