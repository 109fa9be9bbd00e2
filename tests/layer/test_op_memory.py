"""What the op reads of its arguments' memory: only what is there, and what decides an address once."""

from __future__ import annotations

import pytest
import torch

from support.cases import Case, make_problem
from support.subprocesses import run_python
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import forward_on, moe_forward
from trimoe.layer.source import source_of

CASE = Case("memory", tokens=6, hidden=64, inter=48, experts=5, topk=2)
NAMES = ("hidden", "topk_ids", "topk_weights", "plan")


def _arguments() -> dict[str, torch.Tensor]:
    p = make_problem(CASE)
    arguments = (p.hidden, p.ids, p.weights, torch.zeros(CASE.experts, dtype=torch.int32))
    return {**dict(zip(NAMES, arguments, strict=True)), "layer": p.layer}


def _call(arguments: dict[str, torch.Tensor]) -> torch.Tensor:
    return moe_forward(**{**arguments, "layer": arguments["layer"].handle})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 4, -1])  # bytes that stay; -1: all but one
def test_a_storage_that_was_taken_away_is_an_error(name: str, size: int) -> None:
    """FSDP resizes storages to 0 and leaves the tensors that view them."""
    arguments = _arguments()
    storage = arguments[name].untyped_storage()
    storage.resize_(size if size >= 0 else storage.nbytes() - 1)
    with pytest.raises(RuntimeError, match=f"whose storage holds all their elements; got {name} with"):
        _call(arguments)


@pytest.mark.parametrize("name", NAMES)
def test_views_into_the_middle_of_a_storage_are_read_to_their_end(name: str) -> None:
    """Offsets, gaps, and a last element that ends where the storage does."""
    arguments = _arguments()
    expected = _call(arguments)
    tensor = arguments[name]
    wide = torch.full((tensor.numel() * 3 + 5,), 77, dtype=tensor.dtype)
    strides = (tensor.stride(0) * 3, 3)[-tensor.dim() :]
    offset = wide.numel() - 1 - sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True))
    view = wide.as_strided(tensor.shape, strides, offset).copy_(tensor)
    assert torch.equal(_call({**arguments, name: view}), expected)
    wide.untyped_storage().resize_(wide.nbytes - 1)
    with pytest.raises(RuntimeError, match=f"got {name} with"):
        _call({**arguments, name: view})


@pytest.mark.parametrize("name", NAMES)
def test_between_two_elements_is_an_error(name: str) -> None:
    arguments = _arguments()
    tensor = arguments[name]
    raw = bytearray(1 + tensor.nbytes)
    arguments[name] = torch.frombuffer(raw, dtype=tensor.dtype, offset=1).view(tensor.shape)
    with pytest.raises(RuntimeError, match=f"aligned to their elements; got {name}"):
        _call(arguments)


def test_nothing_is_read_of_no_tokens() -> None:
    p = make_problem(Case("none", tokens=0))
    p.hidden.untyped_storage().resize_(0)
    assert moe_forward(p.hidden, p.ids, p.weights, p.layer.handle).shape == p.hidden.shape


def test_sources_whose_storage_was_taken_away_are_errors() -> None:
    weights, scale = torch.zeros(8, 8), torch.ones(8, 1)
    whole = source_of(weights.to(torch.float8_e4m3fn), scale, (1, 8))
    assert whole.scale is not None
    for part in (weights, scale):
        part.untyped_storage().resize_(4)
        with pytest.raises(InputError, match="whose storage holds all its elements; got 4 bytes"):
            source_of(
                torch.zeros(8, 8).to(torch.float8_e4m3fn), scale, (1, 8)
            ) if part is scale else source_of(part)
    p = make_problem(CASE)
    for tensor in (p.weights, p.ids, p.hidden):
        tensor.untyped_storage().resize_(0)
        with pytest.raises(InputError, match="whose storage holds all its elements; got 0 bytes"):
            forward_on("ref", p.hidden, p.ids, p.weights, p.layer.handle)


def test_a_lazily_negative_source_is_packed_with_its_sign() -> None:
    weight, layers = torch.randn(16, 16), []
    for tensor in (-weight, torch._neg_view(weight)):
        layers.append(ExpertLayer(LayerSpec(1, 16, 16, weights="fp32")))
        layers[-1].pack_expert(0, *[source_of(tensor)] * 3)
    assert bytes(layers[0].memory) == bytes(layers[1].memory)


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.zeros(2, 2, 2), "3 dimensions"),
        (torch.zeros(()), "0 dimensions"),
        (torch.zeros(2, 2).to_sparse(), "sparse_coo"),
        (torch.zeros(2, 2, device="meta"), "float32 on meta"),
        (torch.zeros(2, 2, dtype=torch.int8), "int8 on cpu"),
    ],
)
def test_what_is_no_matrix_in_memory_is_an_error(tensor: torch.Tensor, got: str) -> None:
    with pytest.raises(InputError, match=got):
        source_of(tensor)


@pytest.mark.parametrize("topk", [2**16 + 1, 2**31, 2**40])
def test_forward_on_bounds_the_experts_per_token(topk: int) -> None:
    p = make_problem(CASE)
    ids, weights = p.ids[:, :1].expand(-1, topk), p.weights[:, :1].expand(-1, topk)
    with pytest.raises(InputError, match="at most 65536 experts per token; got"):
        forward_on("ref", p.hidden, ids, weights, p.layer.handle)


def test_the_most_experts_per_token_are_computed() -> None:
    """Duplicates add up: 2^16 times the same expert, with 2^-16 of its weight each."""
    p = make_problem(Case("most", tokens=1, topk=1, hidden=16, inter=16, experts=2))
    once = moe_forward(p.hidden, p.ids, torch.ones(1, 1), p.layer.handle)
    many = moe_forward(p.hidden, p.ids.expand(1, 2**16), torch.full((1, 2**16), 2.0**-16), p.layer.handle)
    torch.testing.assert_close(many, once, rtol=2.0**-8, atol=0)  # each of 2^16 sums rounds by 2^-24


def test_no_memory_for_the_result_is_one_line() -> None:
    p = make_problem(Case("big", hidden=2**14, inter=16, experts=1, topk=1))
    rows = 2**30  # 2^46 bytes of result
    arguments = p.hidden[:1].expand(rows, -1), p.ids[:1].expand(rows, 1), p.weights[:1].expand(rows, 1)
    with pytest.raises(MemoryError, match=f"^trimoe: expected {2**46} bytes of memory; got none; try fewer"):
        moe_forward(*arguments, p.layer.handle)


NO_ROOM = """
import resource, torch
from support.cases import Case, make_problem
from support.subprocesses import run_python
from trimoe.layer.op import moe_forward

p = make_problem(Case("wide", tokens=2000, hidden=64, inter=4096, experts=8, topk=8))
call = lambda n: moe_forward(p.hidden[:n], p.ids[:n], p.weights[:n], p.layer.handle)
call(50)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
try:
    call(2000)
except MemoryError as error:
    print(error)
assert call(50).isfinite().all()
"""


@pytest.mark.slow
def test_no_memory_for_the_rows_is_one_line_and_the_next_call_goes_on() -> None:
    line = run_python(NO_ROOM)
    assert line.startswith("trimoe: expected ") and "bytes of memory; got none; try fewer tokens" in line


MUTATION = """
import threading, torch
from support.cases import Case, make_problem
from support.subprocesses import run_python
from trimoe.layer.op import moe_forward

p = make_problem(Case("race", tokens=2000, hidden=16, inter=16, experts=64, topk=8))
stop = threading.Event()
choices = [p.ids.clone(), torch.full_like(p.ids, 63), torch.zeros_like(p.ids), torch.full_like(p.ids, 2**40)]

def mutate():
    while not stop.is_set():
        for choice in choices:
            p.ids.copy_(choice)

threads = [threading.Thread(target=mutate) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(300):
    assert moe_forward(p.hidden, p.ids, p.weights, p.layer.handle).isfinite().all()
stop.set()
for thread in threads:
    thread.join()
print("whole")
"""


@pytest.mark.slow
def test_ids_that_change_during_a_call_write_nowhere_else() -> None:
    """Counted once and read again, they would be written beyond the rows that were counted."""
    assert run_python(MUTATION) == "whole\n"
