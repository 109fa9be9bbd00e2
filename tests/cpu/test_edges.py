"""What the control API refuses before a kernel sees it: each with one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.cases import Case, make_problem
from trimoe import _cpu
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import source_of

CASE = Case("edge", tokens=6, hidden=16, inter=16, experts=2, topk=2)


def _call(**changes: Any) -> None:
    """run_entry on a sound call, but for the changes; a change is a function of the argument."""
    problem = make_problem(CASE)
    ids = replace(source_of(problem.ids.float()), address=problem.ids.data_ptr(), dtype="int64")
    out = torch.empty_like(problem.hidden)
    arguments: dict[str, Any] = {
        "isa": "ref",
        "handle": problem.layer.handle,
        "hidden": source_of(problem.hidden),
        "ids": ids,
        "weights": source_of(problem.weights),
        "out": out.data_ptr(),
        "threads": 1,
    }
    for name, change in changes.items():
        arguments[name] = change(arguments[name])
    _cpu.run_entry(**arguments)


def test_the_call_without_changes_is_sound() -> None:
    _call()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("isa", lambda isa: "sse9", "isa out of .*, ref; got sse9"),
        ("handle", lambda handle: handle + 1000, "the handle of an open ExpertLayer"),
        (
            "hidden",
            lambda s: replace(s, address=0),
            "hidden of fp32, .* that can be read; got a null address",
        ),
        (
            "hidden",
            lambda s: replace(s, address=s.address + 2),
            "hidden .*; got an address between two elements",
        ),
        ("hidden", lambda s: replace(s, shape=(6, 15)), r"hidden of shape \[T, H\]; got 15"),
        ("hidden", lambda s: replace(s, dtype="fp8"), "hidden of fp32, bf16 or fp16, .*; got fp8"),
        ("hidden", lambda s: replace(s, scale=s), "hidden of fp32, bf16 or fp16, .*; got fp32 with scales"),
        ("hidden", lambda s: replace(s, shape=(5, s.shape[1])), r"ids of shape \[T, K\]; got \[6, 2\]"),
        ("ids", lambda s: replace(s, address=0), "ids that can be read; got a null address"),
        ("ids", lambda s: replace(s, address=s.address + 4), "ids that can be read; got an address between"),
        ("ids", lambda s: replace(s, dtype="fp32"), "ids of int32 or int64; got fp32"),
        ("ids", lambda s: replace(s, shape=(6, 1)), r"weights of the shape of ids; got \[6, 2\]"),
        (
            "weights",
            lambda s: replace(s, shape=(5, s.shape[1])),
            r"weights of the shape of ids; got \[5, 2\]",
        ),
        (
            "weights",
            lambda s: replace(s, address=0),
            "weights of fp32, .* that can be read; got a null address",
        ),
        ("weights", lambda s: replace(s, address=s.address + 1), "weights .*; got an address between two"),
        ("out", lambda out: 0, "an output that can be written; got a null address"),
        ("out", lambda out: out + 2, "an output that can be written; got an address between two elements"),
        ("threads", lambda threads: 0, "at least one thread; got 0"),
    ],
)
def test_bad_calls_are_errors(name: str, change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _call(**{name: change})


@pytest.mark.parametrize("shift", [0, 4, -4, 6 * 16 * 4 - 4, -6 * 16 * 4 + 4])
def test_an_output_that_overlaps_hidden_is_an_error(shift: int) -> None:
    """By a single element, at either end."""
    memory = torch.zeros(3, 6, 16)
    with pytest.raises(InputError, match="an output apart from the inputs; got one that overlaps them"):
        _call(hidden=lambda _: source_of(memory[1]), out=lambda _: memory[1].data_ptr() + shift)


@pytest.mark.parametrize("name", ["ids", "weights"])
def test_an_output_that_overlaps_the_router_s_choice_is_an_error(name: str) -> None:
    memory = torch.zeros(6 * 16)
    dtype = {"ids": "int32", "weights": "fp32"}[name]

    def inside(source: Any) -> Any:
        return replace(source, address=memory.data_ptr() + 8, dtype=dtype)

    with pytest.raises(InputError, match="overlaps them"):
        _call(**{name: inside, "out": lambda _: memory.data_ptr()})


def test_an_output_beside_hidden_is_not_an_overlap() -> None:
    """Also when the rows of hidden lie backwards, which its first address does not show."""
    memory = torch.zeros(3, 6, 16)
    forwards = source_of(memory[1])
    backwards = replace(forwards, address=memory[1, 5].data_ptr(), strides=(-16, 1))
    for hidden in (forwards, backwards):
        for neighbour in (0, 2):
            _call(hidden=lambda _, s=hidden: s, out=lambda _, n=neighbour: memory[n].data_ptr())
    with pytest.raises(InputError, match="overlaps"):
        _call(hidden=lambda _: backwards, out=lambda _: memory[1].data_ptr())


@pytest.mark.parametrize(
    ("address", "message"),
    [(0, "the address of packed experts; got null"), (32, "aligned to 64 bytes")],
)
def test_packed_experts_at_a_bad_address_are_errors(address: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExpertLayer(LayerSpec(1, 16, 16), address=address)


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "int4", "fp8", "mxfp4"])
def test_every_format_has_a_probe(weights: str) -> None:
    assert all(gflops > 0 for gflops in _cpu.probe_gflops(weights, 0.001, 2, 2))


@pytest.mark.parametrize("weights", ["fp16", "int3", ""])
def test_probe_of_no_format_is_an_error(weights: str) -> None:
    with pytest.raises(InputError, match="weights out of fp32, bf16, int8, int4, fp8, mxfp4"):
        _cpu.probe_gflops(weights, 0.001, 1, 1)
