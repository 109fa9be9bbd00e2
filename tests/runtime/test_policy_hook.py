"""Who decides at a call without a plan: a fixed plan, a Python policy, and what it may do wrong."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from support.cases import Case, Problem, make_problem
from support.codes import DIMMS, forward, lay
from trimoe import _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE
from trimoe.errors import InputError
from trimoe.hf.stored_experts import StoredExperts

CASE = Case("policy", tokens=9, hidden=96, inter=80, experts=8, topk=2, routing="skip")


@pytest.fixture
def problem() -> Problem:
    problem = make_problem(CASE, "bf16")
    lay(problem, ["localized"] * CASE.experts)
    return problem


def rows_of(problem: Problem, policy: Any) -> dict[int, int]:
    """By code, what a call did under a policy; the bits are the CPU's."""
    handle, recorder = problem.layer.handle, _runtime.Recorder()
    _runtime.set_policy(handle, None)
    wanted = forward(problem)
    _runtime.set_policy(handle, policy)
    _runtime.set_recorder(handle, recorder)
    assert torch.equal(forward(problem), wanted)
    _runtime.set_recorder(handle, None)
    ((record,), dropped) = recorder.drain()
    assert dropped == 0
    return {one["code"]: one["rows"] for one in record["domains"] if one["rows"]}


def counts_of(problem: Problem) -> list[int]:
    return [int((problem.ids == expert).sum()) for expert in range(CASE.experts)]


def test_a_fixed_plan_is_carried_out(problem: Problem) -> None:
    counts = counts_of(problem)
    for plan in (
        [GPU] * CASE.experts,
        np.full(CASE.experts, GPU, np.int64),
        np.full(2 * CASE.experts, GPU, np.int32)[::2],
    ):
        assert rows_of(problem, plan) == {GPU: sum(counts)}
    homes = [FIRST_DIMM + expert % DIMMS for expert in range(CASE.experts)]
    assert rows_of(problem, homes) == {
        code: sum(n for n, home in zip(counts, homes, strict=True) if home == code) for code in set(homes)
    }
    assert rows_of(problem, None) == {CPU: sum(counts)}


def test_a_python_policy_is_asked_with_what_the_router_chose(problem: Problem) -> None:
    asked: list[tuple[Any, int, int]] = []

    def policy(counts: Any, tokens: int, topk: int) -> Any:
        asked.append((counts, tokens, topk))
        # One count changes where the work goes.
        return np.where(counts == 0, IDLE, np.where(counts >= counts.max(), GPU, CPU)).astype(np.int32)

    counts = counts_of(problem)
    most = sum(n for n in counts if n == max(counts))
    assert rows_of(problem, policy) == {CPU: sum(counts) - most, GPU: most}
    ((seen, tokens, topk),) = asked
    assert (seen.tolist(), seen.dtype, tokens, topk) == (counts, np.int64, CASE.tokens, CASE.topk)
    problem.ids = torch.where(problem.ids == counts.index(max(counts)), CASE.experts, problem.ids)
    fewer = counts_of(problem)
    assert rows_of(problem, policy)[GPU] == sum(n for n in fewer if n == max(fewer)) != most


def test_an_explicit_plan_asks_nobody(problem: Problem) -> None:
    def policy(*_: Any) -> Any:
        raise AssertionError

    wanted = forward(problem)
    _runtime.set_policy(problem.layer.handle, policy)
    assert torch.equal(forward(problem, [CPU] * CASE.experts), wanted)


class Odd(Exception):
    """No error of ours."""


@pytest.mark.parametrize("raised", [Odd("so"), KeyboardInterrupt(), ValueError("a\nb"), SystemExit(3)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("way", ["op", "module", "bare"])
def test_what_a_policy_raises_is_the_caller_s(problem: Problem, raised: Any, mode: Any, way: str) -> None:
    def policy(counts: Any, tokens: int, topk: int) -> Any:
        raise raised

    wanted = forward(problem)
    _runtime.set_policy(problem.layer.handle, policy)
    arguments = problem.hidden, problem.ids, problem.weights
    calls = {
        "op": lambda: forward(problem),
        "module": lambda: StoredExperts(problem.layer)(*arguments),
        "bare": lambda: torch.ops.trimoe.moe_forward(*arguments, problem.layer.handle),
    }
    with mode(), pytest.raises(BaseException) as caught:
        calls[way]()
    found: Any = caught.value
    if way == "bare" and mode is torch.inference_mode:
        assert type(found) is RuntimeError and str(found).startswith(
            "trimoe: expected a plan from the layer's"
        )
        found = found.__cause__
    assert found is raised
    frames = []
    trace = found.__traceback__
    while trace:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "policy" in frames  # where it happened
    _runtime.set_policy(problem.layer.handle, None)
    assert torch.equal(forward(problem), wanted)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            np.zeros(CASE.experts - 1, np.int32),
            r"a plan of shape \[E\] of integers; got 7 for 8 experts; try",
        ),
        (np.zeros(0, np.int32), "got 0 for 8 experts"),
        (np.zeros((CASE.experts, 1), np.int32), "integers; got ndarray"),
        (np.zeros(CASE.experts), "integers; got ndarray"),
        (None, "integers; got NoneType"),
        ("plan", "integers; got str"),
        ([2**40] * CASE.experts, "integers; got 1099511627776"),
        ([9] * CASE.experts, r"domains this layer has: 0 \(CPU\), 1 \(GPU\), .*; got 9 for expert 0; try"),
        ([IDLE] * CASE.experts, r"every expert that has rows; got -1 \(idle\)"),
    ],
)
def test_an_answer_that_is_no_plan_is_one_line(problem: Problem, answer: Any, message: str) -> None:
    _runtime.set_policy(problem.layer.handle, lambda *_: answer)
    with pytest.raises(RuntimeError, match=message) as error:
        forward(problem)
    assert error.value.__cause__ is None
    if isinstance(answer, np.ndarray):
        with pytest.raises(InputError, match="shape"):
            _runtime.set_policy(problem.layer.handle, answer)


def test_a_policy_may_call_the_op(problem: Problem) -> None:
    """On its own layer and on others, with buffers of its own."""
    other = make_problem(Case("other", tokens=30, hidden=64, inter=48, experts=9, topk=3), "int8")
    lay(other, ["localized"] * 9)
    wanted, others = forward(problem), forward(other)
    inner: list[bool] = []

    def policy(counts: Any, tokens: int, topk: int) -> Any:
        inner.append(torch.equal(forward(problem, [GPU] * CASE.experts), wanted))
        inner.append(torch.equal(forward(other, [GPU] * 9), others))
        return np.where(counts > 0, GPU, IDLE)

    _runtime.set_policy(problem.layer.handle, policy)
    assert torch.equal(forward(problem), wanted) and inner == [True, True]


@pytest.mark.slow
def test_a_policy_may_replace_itself(problem: Problem) -> None:
    handle, wanted = problem.layer.handle, forward(problem)

    def policy(counts: Any, tokens: int, topk: int) -> Any:
        _runtime.set_policy(handle, None)
        _runtime.detach(handle)  # the call has what it began with
        return [GPU] * CASE.experts

    _runtime.set_policy(handle, policy)
    assert torch.equal(forward(problem), wanted)
    assert _runtime.codes(handle) == [CPU]
    gone = weakref.ref(policy)
    del policy
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_a_closed_layer_lets_go_of_its_policy() -> None:
    problem = make_problem(CASE, "bf16")

    class Policy:
        def __call__(self, *_: Any) -> Any:
            return [CPU] * CASE.experts

    policy = Policy()
    gone = weakref.ref(policy)
    _runtime.set_policy(problem.layer.handle, policy)
    del policy
    gc.collect()
    assert gone() is not None
    problem.layer.close()
    gc.collect()
    assert gone() is None
