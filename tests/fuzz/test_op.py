"""Random calls of the op, right and wrong: eager and fake tensors agree, and no call ends the process."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from support.cases import FORMATS, Case, Problem, make_problem
from support.fuzz import fuzz
from support.fuzz_child import Child
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward

pytestmark = pytest.mark.slow

CALLS = 40  # of a round, in one fork
Arguments = dict[str, Any]
Change = Callable[[random.Random, torch.Tensor], Any]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
DTYPES = (
    *(*FLOATS, torch.float64, torch.float8_e4m3fn, torch.complex64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
TENSORS = ("hidden", "topk_ids", "topk_weights", "plan")
MAX_TOPK, MAX_PAIRS = 1 << 16, (1 << 31) - 1


def _transposed(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT if x.dim() > 1 else x


def _every_other(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)[..., ::2] if x.dim() else x


def _shifted(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape).copy_(x)


def _one_row(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    return x[:1].expand_as(x) if x.dim() else x


def _overlapping(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    fits = x.dim() == 2 and x.is_contiguous() and sum(x.shape) <= x.numel()
    return x.as_strided(x.shape, (1, choose.randrange(2))) if fits else x


def _odd_values(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    numbers = (float("nan"), float("inf"), 1e38, -0.0) if x.is_floating_point() else (-1, 99, -(2**31), 2**40)
    x = x.clone(memory_format=torch.contiguous_format)
    for _ in range(min(3, x.numel())):
        x.view(-1)[choose.randrange(x.numel())] = torch.tensor(choose.choice(numbers)).to(x.dtype)
    return x


def _parameter(choose: random.Random, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.Parameter(x) if x.is_floating_point() else x


def _huge(choose: random.Random, call: Arguments) -> None:
    """More tokens or experts per token than there may be, all of one number."""
    rows, cols = choose.choice(((1, MAX_TOPK + 1), (2, 2**40), (2**31, 0), (2**30, 2), (2**40, 1)))
    for name, width in (("hidden", call["hidden"].shape[1]), ("topk_ids", cols), ("topk_weights", cols)):
        call[name] = torch.zeros(1, 1, dtype=call[name].dtype).expand(rows, width)


# What changes nothing, and what may be wrong.
SAME: tuple[Change, ...] = (
    _transposed,
    _every_other,
    _shifted,
    _one_row,
    _overlapping,
    _odd_values,
    _parameter,
)
OTHER: tuple[Change, ...] = (
    lambda choose, x: x.to(choose.choice(DTYPES)),
    lambda choose, x: x[:-1] if x.dim() else x,
    lambda choose, x: x[..., : choose.randrange(1 + x.shape[-1])] if x.dim() else x,
    lambda choose, x: torch.cat([x, x], choose.randrange(x.dim())) if x.dim() else x,
    lambda choose, x: choose.choice((x[None], x[..., None], x.flatten(), x.sum(), x.flatten()[:0])),
    lambda choose, x: x.to("meta"),
    lambda choose, x: x.detach().to_sparse(),
    lambda choose, x: None,
)  # fmt: skip


@functools.cache
def _problems() -> list[Problem]:
    cases = [
        Case("op", tokens=9, hidden=64, inter=40),
        Case("odd", tokens=9, hidden=37, inter=29, experts=1, topk=1),
    ]
    return [make_problem(case, name) for case in cases for name in FORMATS]


@functools.cache
def _closed() -> int:
    layer = ExpertLayer(LayerSpec(2, 16, 16))
    layer.close()
    return layer.handle


def _right_call(choose: random.Random) -> tuple[Problem, Arguments]:
    p = choose.choice(_problems())
    tokens, topk = choose.choice((0, 1, 2, 9)), choose.choice((0, 1, 2, 5))
    generator = torch.Generator().manual_seed(choose.randrange(1 << 32))
    ids = torch.randint(0, p.case.experts, (tokens, topk), generator=generator)
    return p, {
        "hidden": p.hidden[:tokens].to(choose.choice(FLOATS)),
        "topk_ids": ids.to(choose.choice((torch.int32, torch.int64))),
        "topk_weights": torch.rand(tokens, topk, generator=generator).to(choose.choice(FLOATS)),
        "layer": p.layer.handle,
        "plan": torch.zeros(p.case.experts, dtype=torch.int32) if choose.random() < 0.5 else None,
    }


def _change(choose: random.Random, call: Arguments) -> None:
    name, kind = choose.choice((*call, *TENSORS[:3])), choose.random()
    old = call[name]
    if name == "layer":
        others = 0, -1, 1, 2**63 - 1, -(2**63), old ^ 1 << choose.randrange(24, 63), _closed()
        call[name] = choose.choice(others)
    elif old is None or old.layout is not torch.strided or old.device.type != "cpu" or not old.numel():
        return
    elif name == "plan" and kind < 0.3:
        call[name] = old.clone(memory_format=torch.contiguous_format)
        call[name].view(-1)[choose.randrange(old.numel())] = choose.choice((1, 2, -1, 2**31 - 1))
    else:
        call[name] = choose.choice(SAME if kind < 0.6 and name != "plan" else OTHER)(choose, old)


def _is_right(p: Problem, call: Arguments) -> bool:
    """As the op's documentation has it."""
    hidden, ids, weights, plan = tensors = [call[name] for name in TENSORS]
    there = [one for one in tensors if one is not None]
    if any(one is None for one in tensors[:3]) or any(one.layout is not torch.strided for one in there):
        return False
    shapes = hidden.dim() == ids.dim() == 2 and ids.shape == weights.shape and len(ids) == len(hidden)
    return (
        len({one.device for one in there}) == 1
        and call["layer"] == p.layer.handle
        and shapes
        and hidden.shape[1] == p.case.hidden
        and hidden.dtype in FLOATS
        and weights.dtype in FLOATS
        and ids.dtype in (torch.int32, torch.int64)
        and ids.shape[1] <= MAX_TOPK
        and len(ids) * max(1, ids.shape[1]) <= MAX_PAIRS
        and (plan is None or (plan.dtype is torch.int32 and plan.shape == (p.case.experts,)))
    )


def _fake(call: Arguments) -> torch.Tensor:
    with FakeTensorMode() as mode:
        fakes = {k: mode.from_tensor(v) for k, v in call.items() if isinstance(v, torch.Tensor)}
        return moe_forward(**{**call, **fakes})


def _outcome(run: Callable[[Arguments], torch.Tensor], call: Arguments) -> torch.Tensor | str:
    try:
        return run(call)
    except Exception as error:
        return next((line for line in str(error).splitlines() if "trimoe: " in line), f"{error!r}")


def _plainly(p: Problem, call: Arguments) -> torch.Tensor:
    """What the call should be, with tensors that lie end to end and ids that are none left to -1."""
    hidden, ids, weights, _ = (call[name] for name in TENSORS)
    ids = ids.to(torch.int64).clone()
    ids[(ids < 0) | (ids >= p.case.experts)] = -1
    return moe_forward(hidden.detach().clone().contiguous(), ids, weights.detach().float(), p.layer.handle)


def _check(p: Problem, call: Arguments) -> None:
    result, fake = _outcome(lambda given: moe_forward(**given), call), _outcome(_fake, call)
    right, plan = _is_right(p, call), call["plan"]
    is_refused = right and plan is not None and plan.device.type == "cpu" and bool(plan.any())
    if not right or is_refused:  # what only data can tell is the kernel's to refuse
        assert isinstance(result, str) and isinstance(fake, str) is not is_refused, (result, fake)
        assert result.startswith("trimoe: expected ") and "; got " in result and "; try " in result, result
        return
    assert isinstance(result, torch.Tensor) and isinstance(fake, torch.Tensor), (result, fake)
    for one in (result, fake):
        assert (one.shape, one.dtype) == (call["hidden"].shape, call["hidden"].dtype) and one.is_contiguous()
        assert one.device.type == call["hidden"].device.type
    if result.device.type == "cpu":
        plain = _plainly(p, call)
        assert torch.equal(result.detach().view(torch.uint8), plain.view(torch.uint8)), "other numbers"


def _tell(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return str(value)
    return f"{value.dtype} {tuple(value.shape)} {value.layout} on {value.device}"


def _calls(seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(CALLS):
        p, call = _right_call(choose)
        kind = choose.random()
        if kind < 0.05:
            _huge(choose, call)
        for _ in range(choose.choice((0, 1, 1, 2, 3)) if kind > 0.1 else 0):
            _change(choose, call)
        if 0.05 < kind < 0.15:  # for shapes alone
            call |= {name: one.to("meta") for name, one in call.items() if isinstance(one, torch.Tensor)}
        print(p.case.name, p.name, {name: _tell(value) for name, value in call.items()})
        _check(p, call)


@fuzz(rounds=15)
def test_calls_are_right_or_refused_alike(seed: int, tmp_path: Path) -> None:
    FakeTensorMode(), _problems(), _closed()  # what takes long, once
    child = Child(lambda: _calls(seed), tmp_path / "log")
    code = child.wait()
    assert code == 0, f"{code}, {child.said[-2000:]}"
