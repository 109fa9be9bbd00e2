"""Experts on many DIMMs: striped ones are gathered by whoever runs them, split ones computed by all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.ndp_core import NUMBERS, Case, Problem, bytes_of
from support.ndp_fleet import about, distance, expected, outcome, problem, shape_of, weights_of
from trimoe.errors import InputError
from trimoe.ndp import LAYOUTS, Fleet, NdpError

CASES = [
    Case(hidden=64, inter=192, tokens=2),
    Case(hidden=37, inter=29, tokens=3, bias=True),  # fewer panels than DIMMs
    Case(hidden=83, inter=131, tokens=2, activation="relu2", gated=False),
    Case(hidden=96, inter=300, tokens=5, activation="swiglu_oai", bias=True),
]


def placed(source: Problem, layout: str, dimms: int = 5, dimm: int = 3) -> Fleet:
    fleet = Fleet(dimms)
    fleet.place(0, weights_of(source), dimm, layout=layout, **shape_of(source.case))
    return fleet


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layout_has_every_bit_and_computes_the_same(case: Case, number: str) -> None:
    source = problem(replace(case, number=number))
    for before in LAYOUTS:
        fleet = placed(source, before)
        for after in (before, *LAYOUTS, before):
            fleet.relayout(0, after)
            assert fleet.where(0).layout == after and fleet.bytes_of(0) == weights_of(source)
            (result,) = outcome(fleet, [(0, source)])[1]
            if after == "split":
                assert distance(result, expected(source)) < 5e-3
            else:
                assert result == expected(source)
        fleet.remove(0)
        assert [dimm["used_bytes"] for dimm in fleet.stats()["dimms"]] == [0] * 5
        assert [dimm["experts"] for dimm in fleet.stats()["dimms"]] == [0] * 5


def test_a_striped_expert_runs_on_any_dimm() -> None:
    source = problem(CASES[0])
    nbytes = len(weights_of(source))
    for dimm in range(5):
        fleet = placed(source, "striped")
        before = [one["link_bytes"] for one in fleet.stats()["dimms"]]
        out = bytearray(4 * source.x.numel())
        assert fleet.run([(0, bytes_of(source.x), out, dimm)]) > 0
        assert bytes(out) == expected(source)
        stats = fleet.stats()["dimms"]
        sent = [one["link_bytes"] - old for one, old in zip(stats, before, strict=True)]
        # All but its own part come over the link; every DIMM reads what it has.
        parts = [one["used_bytes"] for one in stats]
        assert sent == [0 if one == dimm else part for one, part in enumerate(parts)]
        assert [one["dram_read_bytes"] for one in stats] == parts and sum(parts) == nbytes
        assert [one["experts"] for one in stats] == [0, 0, 0, 1, 0]  # a slot for the step alone
        assert all(set(one["modes"]) == {"host"} for one in stats)
    with pytest.raises(InputError, match="a DIMM of the machine; got 5"):
        fleet.run([(0, bytes_of(source.x), out, 5)])
    fleet.relayout(0, "localized", dimm=1)
    with pytest.raises(InputError, match="an expert on the DIMM where it lies; got 3"):
        fleet.run([(0, bytes_of(source.x), out, 3)])


def test_a_split_expert_keeps_all_dimms_busy_at_once() -> None:
    source = problem(Case(hidden=256, inter=640, tokens=1))
    whole, parts = placed(source, "localized"), placed(source, "split")
    (whole_ns, _), (parts_ns, _) = outcome(whole, [(0, source)]), outcome(parts, [(0, source)])
    assert whole_ns / 5 < parts_ns < whole_ns
    read = [one["dram_read_bytes"] for one in parts.stats()["dimms"]]
    assert len(set(read)) == 1 and sum(read) == about(len(weights_of(source)))
    assert all(one["link_bytes"] == 0 for one in parts.stats()["dimms"])
    assert parts.where(0).nbytes == sum(one["used_bytes"] for one in parts.stats()["dimms"])


@pytest.mark.parametrize("layout", ["striped", "split"])
def test_one_dead_dimm_of_many_leaves_the_others_working(layout: str) -> None:
    source = problem(CASES[0])
    fleet = placed(source, layout)
    fleet.kill(1)
    with pytest.raises(NdpError) as caught:
        outcome(fleet, [(0, source)])
    assert (caught.value.dimm, caught.value.code) == (1, "TIMEOUT")
    assert fleet.bytes_of(0) == weights_of(source)
    assert fleet.evacuate(1) == 1 and fleet.where(0).layout == "localized"
    assert outcome(fleet, [(0, source)])[1] == [expected(source)]
    fleet.relayout(0, layout)  # over the four that are left
    assert fleet.stats()["dimms"][1]["used_bytes"] == 0
    assert distance(outcome(fleet, [(0, source)])[1][0], expected(source)) < 5e-3


def test_an_unknown_layout_and_too_few_dimms_are_refused() -> None:
    source = problem(CASES[0])
    for call in (lambda: placed(source, "spread"), lambda: placed(source, "split").relayout(0, "")):
        with pytest.raises(InputError, match="a layout out of localized, striped, split; got"):
            call()
    for layout in ("striped", "split"):
        with pytest.raises(InputError, match="a fleet of two DIMMs or more; got 1"):
            placed(source, layout, dimms=1, dimm=0)
