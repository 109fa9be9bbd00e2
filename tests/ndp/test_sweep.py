"""Every case of the sweep is there once, and is what the emulator says of it."""

from __future__ import annotations

import functools
import itertools

import pytest

from trimoe.ndp import sweep
from trimoe.ndp.expert import expert_time, relayout_time, ridge_tokens
from trimoe.ndp.sweep import ExpertSweep, sweep_expert


@functools.cache
def swept() -> ExpertSweep:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(sweep, "TFLOPS", (0.25, 1.0))
        small.setattr(sweep, "RANKS", (1, 4))
        small.setattr(sweep, "LINK_GBPS", (25.0,))
        small.setattr(sweep, "TOKENS", (1, 9))
        return sweep_expert(256, 128, dtype="int8", dimms=4)


def test_every_case_is_there_once() -> None:
    localized = [(row.tflops, row.ranks, row.tokens) for row in swept().localized]
    assert localized == list(itertools.product((0.25, 1.0), (1, 4), (1, 9)))
    striped = [(row.tflops, row.ranks, row.link_gbps, row.tokens) for row in swept().striped]
    assert striped == list(itertools.product((0.25, 1.0), (1, 4), (25.0,), (1, 9)))
    assert all(row.link_gbps is None for row in swept().localized)


def test_a_case_is_what_the_emulator_says_of_it() -> None:
    core = {"dtype": "int8", "ranks": 4, "tflops": 0.25}
    want = expert_time(256, 128, 9, **core)
    (row,) = (row for row in swept().localized if (row.tflops, row.ranks, row.tokens) == (0.25, 4, 9))
    assert (row.passes, row.total_ns, row.closed_form_ns) == (want.passes, want.total_ns, want.closed_form_ns)
    want = expert_time(256, 128, 9, **core, layout="striped", dimms=4, link_gbps=25.0)
    (row,) = (row for row in swept().striped if (row.tflops, row.ranks, row.tokens) == (0.25, 4, 9))
    assert (row.passes, row.total_ns, row.closed_form_ns) == (want.passes, want.total_ns, want.closed_form_ns)
    assert [row.ridge_tokens for row in swept().ridge] == [
        ridge_tokens(dtype="int8", ranks=ranks, tflops=tflops) for tflops in (0.25, 1.0) for ranks in (1, 4)
    ]
    (move,) = swept().relayout
    assert move.time == relayout_time(256, 128, dtype="int8", ranks=4, dimms=4, link_gbps=25.0)
