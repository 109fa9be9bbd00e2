"""torch.ops.trimoe.moe_forward as torch sees it: schema, compile, strides, errors, threads, sizes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from support.cases import FORMATS, Case, Problem, make_problem, rel_error
from support.subprocesses import run_python
from trimoe import _cpu, _runtime
from trimoe.domains import CPU, IDLE
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import forward_on, load_op, moe_forward

CASE = Case("op", tokens=12, hidden=64, inter=40, experts=6, topk=2)


def test_schema_is_the_architecture_s() -> None:
    assert str(load_op()._schema) == (
        "trimoe::moe_forward(Tensor hidden, Tensor topk_ids, Tensor topk_weights, SymInt layer, "
        "Tensor? plan=None) -> Tensor"
    ).replace("SymInt", "int")


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "int4", "int4_a16", "fp8", "mxfp4"])
@pytest.mark.parametrize("with_plan", [False, True])
def test_opcheck_passes(weights: str, with_plan: bool) -> None:
    p = make_problem(CASE, weights)
    plan = torch.zeros(CASE.experts, dtype=torch.int32) if with_plan else None
    torch.library.opcheck(load_op(), (p.hidden, p.ids, p.weights, p.layer.handle, plan))


@pytest.mark.slow
def test_a_full_graph_compiles_with_dynamic_tokens() -> None:
    def step(hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.relu(moe_forward(hidden * 2, ids, weights, p.layer.handle)) + 1

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (3, 12, 1):
        p = make_problem(Case("c", tokens=tokens), "fp32")
        with torch.inference_mode():
            torch.testing.assert_close(compiled(p.hidden, p.ids, p.weights), step(p.hidden, p.ids, p.weights))


@pytest.mark.slow
@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_router_dtype_is_computed(ids_dtype: torch.dtype, weights_dtype: torch.dtype) -> None:
    p = make_problem(CASE)
    p.weights = p.weights.to(weights_dtype)
    result = moe_forward(p.hidden, p.ids.to(ids_dtype), p.weights, p.layer.handle)
    assert rel_error(result, p.exact()) <= 3e-6


def test_any_strides_of_any_argument_give_the_same_bits() -> None:
    p = make_problem(CASE)
    expected = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    wide = torch.empty(CASE.tokens, 2 * CASE.hidden)
    wide[:, ::2] = p.hidden
    shifted = torch.empty(CASE.tokens * CASE.hidden + 1)[1:].view(CASE.tokens, CASE.hidden).copy_(p.hidden)
    for hidden in (p.hidden.T.contiguous().T, wide[:, ::2], shifted):
        for ids, weights in ((p.ids.T.contiguous().T, p.weights), (p.ids, p.weights.T.contiguous().T)):
            result = moe_forward(hidden, ids, weights, p.layer.handle)
            assert result.is_contiguous()
            assert torch.equal(result, expected)
    plan = torch.tensor([0, 1] * CASE.experts, dtype=torch.int32)
    assert torch.equal(moe_forward(p.hidden, p.ids, p.weights, p.layer.handle, plan[::2]), expected)
    with pytest.raises(RuntimeError, match="domains this layer has"):
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle, plan[1::2])


def test_inputs_are_not_written() -> None:
    p = make_problem(CASE)
    before = [tensor.clone() for tensor in (p.hidden, p.ids, p.weights)]
    first = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    second = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    assert first.data_ptr() != second.data_ptr() and torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, (p.hidden, p.ids, p.weights), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tokens", [2, 64])
def test_torch_s_thread_count_holds_and_does_not_change_a_bit(tokens: int, name: str) -> None:
    """The layer is large enough that the work is shared (see kSerialFlops)."""
    p = make_problem(Case("threads", tokens=tokens, hidden=640, inter=384, experts=8, topk=2), name)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append(moe_forward(p.hidden, p.ids, p.weights, p.layer.handle))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    by_entry = forward_on(_cpu.selected_isa(), p.hidden, p.ids, p.weights, p.layer.handle)
    assert torch.equal(results[0], by_entry)


def test_many_python_threads_get_right_results_at_once() -> None:
    problems = [make_problem(Case("p", tokens=40 + i, hidden=96, inter=64), "bf16", seed=i) for i in range(4)]
    expected = [moe_forward(p.hidden, p.ids, p.weights, p.layer.handle) for p in problems]
    failures: list[int] = []

    def work(index: int) -> None:
        p = problems[index]
        for _ in range(20):
            if not torch.equal(moe_forward(p.hidden, p.ids, p.weights, p.layer.handle), expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(index % 4,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


LONG = Case("long", tokens=100_000, hidden=40, inter=600, experts=7, topk=2)


@pytest.mark.slow
def test_a_token_among_a_hundred_thousand_gets_what_it_gets_alone() -> None:
    """More rows than one chunk keeps."""
    p = make_problem(LONG, "fp32")
    p.hidden = torch.nn.functional.pad(p.hidden, (0, 1))[:, :-1]  # rows that do not lie end to end
    result = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    for start in (0, 49_990, 99_980):
        part = slice(start, start + 20)
        alone = moe_forward(p.hidden[part], p.ids[part], p.weights[part], p.layer.handle)
        assert torch.equal(result[part], alone)
    assert p.layer.stats()["rows"] == 200_000 + 3 * 40


@pytest.mark.slow
def test_a_hundred_thousand_tokens_take_the_memory_of_a_chunk() -> None:
    """In a process of its own, where no earlier peak hides this one and no buffer is there yet."""
    grown_mib = float(
        run_python(
            "from layer.test_op import LONG, make_problem, moe_forward\n"
            "def kib(name):\n"
            "    return int(open('/proc/self/status').read().split(name)[1].split()[0])\n"
            "p = make_problem(LONG, 'fp32')\n"
            "before = kib('VmRSS:')\n"
            "moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)\n"
            "print((kib('VmHWM:') - before) / 1024)"
        )
    )
    assert 16 < grown_mib < 128  # the result is 15, a chunk takes 40; all rows at once would take 476


def test_ids_outside_the_experts_are_written_nowhere() -> None:
    """In a new thread, whose buffers are still empty: taking one for an expert's would crash."""
    p = make_problem(Case("outside", tokens=4, experts=6))
    results: list[torch.Tensor] = []
    for outside in (6, -1):
        ids = torch.full_like(p.ids, outside)
        call = (p.hidden, ids, p.weights, p.layer.handle)
        thread = threading.Thread(target=lambda call=call: results.append(moe_forward(*call)))
        thread.start()
        thread.join()
    assert len(results) == 2 and not any(result.any() for result in results)


def test_stats_count_what_was_done() -> None:
    p = make_problem(CASE, "bf16")
    moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    stats = p.layer.stats()
    used = p.ids.unique().numel()
    assert (stats["calls"], stats["tokens"], stats["rows"]) == (1, 12, 24)
    assert stats["expert_rows"] == torch.bincount(p.ids.flatten(), minlength=6).tolist()
    assert stats["weight_bytes"] == used * p.layer.spec.layer_bytes // 6
    assert stats["flops"] == 24 * 6 * 64 * 40 and stats["busy_ns"] > 0
    p.layer.reset_stats()
    assert not any(p.layer.stats()["expert_rows"]) and p.layer.stats()["busy_ns"] == 0


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (1, r"domains this layer has: 0 \(CPU\); got 1 for expert 0"),
        (2, r"domains this layer has: 0 \(CPU\); got 2"),
        (-2, r"domains this layer has: 0 \(CPU\); got -2"),
        (-3, r"domains this layer has: 0 \(CPU\); got -3"),
        (2**31 - 1, r"domains this layer has: 0 \(CPU\); got 2147483647"),
        (-(2**31), r"domains this layer has: 0 \(CPU\); got -2147483648"),
        (-1, r"a domain for every expert that has rows; got -1 \(idle\) for expert 0"),
    ],
)
def test_a_plan_names_domains_that_are_there(domain: int, message: str) -> None:
    """What only data can tell; shapes, dtypes, devices: tests/layer/test_op_kernels.py."""
    p = make_problem(CASE)
    plan = torch.full((CASE.experts,), domain, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message) as error:
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle, plan)
    line = str(error.value).splitlines()[0]
    assert all(word in line for word in ("trimoe: expected", "; got ", "; try "))


def test_a_closed_layer_is_an_error_not_a_crash() -> None:
    p = make_problem(CASE)
    p.layer.close()
    p.layer.close()
    with pytest.raises(RuntimeError, match="open ExpertLayer"):
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)


def test_a_stale_handle_is_never_another_layer() -> None:
    p = make_problem(CASE)
    p.layer.close()
    other = make_problem(CASE)
    with pytest.raises(RuntimeError, match="open ExpertLayer"):
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    assert other.layer.handle != p.layer.handle


def test_a_layer_closed_during_a_call_lives_until_it_ends() -> None:
    """Closed while the call asks the layer's policy: the weights are read after that."""
    p = make_problem(Case("close", tokens=40, hidden=512, inter=512, experts=8), "fp32")
    expected = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    others = list[Problem]()

    def policy(counts: np.ndarray, tokens: int, topk: int) -> np.ndarray:
        p.layer.close()
        others.append(make_problem(p.case, "fp32", seed=1))  # gets the memory that was freed, if any was
        return np.where(counts > 0, CPU, IDLE)

    _runtime.set_policy(p.layer.handle, policy)
    assert torch.equal(moe_forward(p.hidden, p.ids, p.weights, p.layer.handle), expected)
    assert len(others) == 1
    with pytest.raises(RuntimeError, match="open ExpertLayer"):
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)


class _MallInfo(ctypes.Structure):
    _fields_ = tuple((f"field_{i}", ctypes.c_size_t) for i in range(10))


def test_a_call_keeps_nothing() -> None:
    """Neither tensors nor heap cells, also when it fails: torch hands them over, the op frees them."""
    p = make_problem(CASE)
    plan = torch.zeros(CASE.experts, dtype=torch.int32)
    tensors = (p.hidden, p.ids, p.weights, plan)

    def fail() -> None:
        with pytest.raises(RuntimeError):
            moe_forward(p.hidden, p.ids, p.weights, -1, plan)

    def succeed() -> None:
        assert moe_forward(*tensors[:3], p.layer.handle, plan)._use_count() == 1

    for call in (fail, succeed):
        _heap_growth(call, 100)  # what is allocated once
        assert _heap_growth(call, 500) < 500 * 16  # no block of malloc is smaller than 24 bytes
        assert [tensor._use_count() for tensor in tensors] == [1, 1, 1, 1]


def _heap_growth(call: Callable[[], None], times: int) -> int:
    """Bytes by which malloc's blocks in use grow, as glibc counts them from 2.33 on."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo
    before = mallinfo2().field_7
    for _ in range(times):
        call()
    return int(mallinfo2().field_7) - int(before)


def test_layers_are_freed_with_their_owner() -> None:
    layer = ExpertLayer(LayerSpec(2, 16, 16))
    handle = layer.handle
    del layer
    with pytest.raises(InputError, match="open ExpertLayer"):
        _cpu.layer_stats(handle)


def _python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


@pytest.mark.parametrize("isa", [e["isa"] for e in _cpu.kernel_table() if e["supported"]])
def test_the_isa_that_is_named_is_chosen(isa: str) -> None:
    result = _python("from trimoe import _cpu; print(_cpu.selected_isa())", TRIMOE_CPU_ISA=isa)
    assert result.stdout.strip() == isa


def test_amx_is_not_used_when_the_system_refuses_it() -> None:
    """Linux refuses the tiles to a process with a signal stack too small for their state."""
    if not next((e["supported"] for e in _cpu.kernel_table() if e["isa"] == "amx"), False):
        pytest.skip("no AMX on this machine")
    result = _python(
        "import ctypes, struct\n"
        "stack = ctypes.create_string_buffer(4096)\n"
        "setting = struct.pack('@PiN', ctypes.addressof(stack), 0, 4096)\n"
        "assert ctypes.CDLL(None).sigaltstack(setting, None) == 0\n"
        "from trimoe import _cpu\n"
        "print(_cpu.features()['amx_permission'], _cpu.selected_isa(), _cpu.kernel_table()[0]['reason'])"
    )
    refused, isa, *reason = result.stdout.split()
    assert refused == "False" and isa != "amx" and "refused" in reason, result.stderr


def test_unknown_isa_names_the_choices() -> None:
    result = _python("from trimoe import _cpu; _cpu.selected_isa()", TRIMOE_CPU_ISA="sse9")
    assert "expected TRIMOE_CPU_ISA out of" in result.stderr and "ref" in result.stderr


@pytest.mark.slow
def test_loading_twice_is_guarded() -> None:
    """Even from two copies of the loader in one process: the second registration would crash torch."""
    code = (
        "import sys, torch, trimoe.layer.op as a; a.load_op()\n"
        "del sys.modules['trimoe.layer.op']\n"
        "import trimoe.layer.op as b; assert a is not b; print(b.load_op() is a.load_op())"
    )
    assert _python(code).stdout.strip() == "True"
