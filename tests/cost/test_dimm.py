"""What DIMMs take is what the emulator says: exactly for few tokens, between its nodes for more."""

from __future__ import annotations

import functools

import pytest

from trimoe.cost.dimm import DimmCosts
from trimoe.errors import InputError
from trimoe.hardware.profile import NdpProfile, load_profile
from trimoe.ndp import ExpertTime, expert_time, relayout_time

HIDDEN, INTER = 512, 256


def ndp() -> NdpProfile:
    found = load_profile("h100-8470-ndp16").ndp
    assert found is not None
    return found


@functools.cache
def costs() -> DimmCosts:
    return DimmCosts(ndp(), HIDDEN, INTER, "bf16", host_gbps=10)


def emulated(tokens: int, layout: str = "localized") -> ExpertTime:
    one = ndp()
    return expert_time(
        HIDDEN, INTER, tokens, spec=one.speed_grade, dtype="bf16", ranks=one.ranks, dimms=one.dimms,
        link_gbps=one.link_gbps, tflops=one.tflops, buffer_kib=one.buffer_kib, layout=layout,
    )  # fmt: skip


@pytest.mark.parametrize("tokens", [1, 7, 16, 32, 64])
@pytest.mark.parametrize("striped", [False, True])
def test_few_tokens_and_nodes_take_what_the_emulator_says(tokens: int, striped: bool) -> None:
    want = emulated(tokens, "striped" if striped else "localized")
    found = costs().expert(tokens, striped)
    assert found.dimm_ns == pytest.approx(want.total_ns)
    assert found.channel_ns == pytest.approx(want.command_ns + want.broadcast_ns + want.result_ns)
    assert found.link_ns == pytest.approx(want.link_bytes * want.passes / ndp().link_gbps)


def test_between_the_nodes_time_goes_straight() -> None:
    low, middle, high, beyond = (costs().expert(tokens).dimm_ns for tokens in (32, 48, 64, 128))
    assert middle == pytest.approx((low + high) / 2) and beyond > high


def test_the_other_dimms_read_their_part_in_every_pass() -> None:
    want, one = emulated(5, "striped"), emulated(1)
    stream_ns = one.gate_up_ns + one.down_ns
    assert costs().stream_ns == pytest.approx(stream_ns)
    assert costs().expert(5, striped=True).others_ns == pytest.approx(want.passes * stream_ns / ndp().dimms)


@pytest.mark.parametrize("migrate", [False, True])
def test_a_move_takes_the_link_as_long_as_the_emulator_says(migrate: bool) -> None:
    one = ndp()
    want = relayout_time(
        HIDDEN, INTER, spec=one.speed_grade, dtype="bf16", ranks=one.ranks, dimms=one.dimms,
        link_gbps=one.link_gbps, migrate=migrate,
    )  # fmt: skip
    assert costs().move_ns(migrate) == pytest.approx(want.link_ns)


def test_the_host_s_stream_costs_the_core_time() -> None:
    assert 0 < costs().host_ns_per_byte < 1 / 10 * 2


def test_a_format_that_no_core_reads_is_one_line() -> None:
    with pytest.raises(InputError, match=r"weights that a DIMM's core reads: .*; got fp8"):
        DimmCosts(ndp(), HIDDEN, INTER, "fp8", host_gbps=10)
