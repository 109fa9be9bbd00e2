"""What calls took, by code: counts add up, kinds are said, times are of this call."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from support.cases import Case, make_problem
from support.codes import DIMMS, forward, lay
from trimoe import _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT
from trimoe.errors import InputError

CASE = Case("recorder", tokens=9, hidden=96, inter=80, experts=8, topk=2)
LAYOUTS = ["split", "localized", "striped", "localized"] * 2


@pytest.mark.parametrize("striped", [False, True])
@pytest.mark.parametrize("arithmetic", ["host", "core"])
def test_every_row_is_somebody_s(arithmetic: str, striped: bool) -> None:
    problem, recorder = make_problem(CASE, "bf16"), _runtime.Recorder()
    fleet = lay(problem, [one if striped else one.replace("striped", "split") for one in LAYOUTS], arithmetic)
    plan = [
        SPLIT,
        FIRST_DIMM + 1,
        FIRST_DIMM if striped else SPLIT,
        GPU,
        CPU,
        FIRST_DIMM + 5 % DIMMS,
        CPU,
        CPU,
    ]
    _runtime.set_recorder(problem.layer.handle, recorder)
    before, at_first_ns = fleet.stats(), time.monotonic_ns()
    forward(problem, plan)
    at_last_ns, after = time.monotonic_ns(), fleet.stats()
    ((record,), dropped) = recorder.drain()
    assert dropped == 0 and recorder.drain() == ([], 0)
    assert record["layer"] == problem.layer.handle and record["tokens"] == CASE.tokens
    assert at_first_ns <= record["begun_ns"] <= record["begun_ns"] + record["took_ns"] <= at_last_ns
    assert 0 < record["submitted_ns"] <= record["took_ns"] and record["plan_ns"] == 0

    counts = [int((problem.ids == expert).sum()) for expert in range(CASE.experts)]
    domains = record["domains"]
    codes = [one["code"] for one in domains]
    assert codes == sorted({CPU, *(code for code, n in zip(plan, counts, strict=True) if n)})
    for one in domains:
        mine = [n for code, n in zip(plan, counts, strict=True) if code == one["code"] and n]
        assert (one["experts"], one["rows"]) == (len(mine), sum(mine))
        assert one["kind"] == {CPU: "measured", GPU: "modelled"}.get(one["code"], "emulated")
        assert (one["took_ns"] > 0) == (one["code"] != GPU)
    assert sum(one["rows"] for one in domains) == CASE.tokens * CASE.topk
    on_dimms = [one for one in domains if one["kind"] == "emulated"]
    lent = sum(one["rows"] for one in on_dimms if arithmetic == "core")
    assert record["host_rows"] == CASE.tokens * CASE.topk - lent
    # The slowest code took as long as the fleet says that the step did; where experts were gathered, less
    # what it took to give the ranks of all back to the host.
    slowest_ns, step_ns = max(one["took_ns"] for one in on_dimms), after["busy_ns"] - before["busy_ns"]
    assert slowest_ns < step_ns if striped and SPLIT not in codes else slowest_ns == step_ns
    shares = sum(one["host_ns"] for one in on_dimms)
    assert 0 <= after["host_ns"] - before["host_ns"] - shares <= len(on_dimms)
    assert all(one["host_ns"] == 0 for one in domains if one["kind"] != "emulated")


def test_one_recorder_for_many_layers_forgets_the_oldest() -> None:
    first, second = make_problem(CASE, "bf16"), make_problem(CASE, "int8")
    recorder = _runtime.Recorder(capacity=3)
    for problem in (first, second):
        _runtime.set_recorder(problem.layer.handle, recorder)
    order = [first, second, second, first, second]
    for problem in order:
        forward(problem)
    records, dropped = recorder.drain()
    assert [one["layer"] for one in records] == [problem.layer.handle for problem in order[2:]]
    assert dropped == 2
    assert [one["begun_ns"] for one in records] == sorted(one["begun_ns"] for one in records)
    with pytest.raises(InputError, match="room for one call or more; got 0"):
        _runtime.Recorder(0)
    _runtime.set_recorder(first.layer.handle, None)
    forward(first)
    assert recorder.drain() == ([], 0)


def test_a_policy_s_time_is_its_own() -> None:
    problem, recorder = make_problem(CASE, "bf16"), _runtime.Recorder()
    lay(problem, ["localized"] * CASE.experts)
    _runtime.set_recorder(problem.layer.handle, recorder)
    spent: list[int] = []

    def policy(counts: np.ndarray, tokens: int, topk: int) -> np.ndarray:
        begun = time.monotonic_ns()
        plan = np.where(counts > 0, GPU, IDLE)
        spent.append(time.monotonic_ns() - begun)
        return plan

    _runtime.set_policy(problem.layer.handle, policy)
    forward(problem)
    ((record,), _) = recorder.drain()
    assert spent[0] <= record["plan_ns"] <= record["submitted_ns"] <= record["took_ns"]


def test_calls_that_fail_or_have_no_rows() -> None:
    problem, recorder = make_problem(CASE, "bf16"), _runtime.Recorder()
    _runtime.set_recorder(problem.layer.handle, recorder)
    with pytest.raises(RuntimeError):
        forward(problem, [7] * CASE.experts)
    assert recorder.drain() == ([], 0)
    problem.ids = torch.full_like(problem.ids, -1)
    forward(problem, [IDLE] * CASE.experts)
    ((record,), _) = recorder.drain()
    assert record["host_rows"] == 0 and [one["code"] for one in record["domains"]] == [CPU]
