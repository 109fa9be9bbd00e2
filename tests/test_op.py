"""torch.ops.trimoe.moe_forward as torch sees it: schema, compile, strides, errors, threads, sizes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from support.cases import Case, make_problem, rel_error
from trimoe import _cpu
from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.ops import load_op, moe_forward

CASE = Case("op", tokens=12, hidden=64, inter=40, experts=6, topk=2)


def test_schema_is_the_architecture_s() -> None:
    assert str(load_op()._schema) == (
        "trimoe::moe_forward(Tensor hidden, Tensor topk_ids, Tensor topk_weights, SymInt layer, "
        "Tensor? plan=None) -> Tensor"
    ).replace("SymInt", "int")


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("with_plan", [False, True])
def test_opcheck(weights: str, with_plan: bool) -> None:
    p = make_problem(CASE, weights)
    plan = torch.zeros(CASE.experts, dtype=torch.int32) if with_plan else None
    torch.library.opcheck(load_op(), (p.hidden, p.ids, p.weights, p.layer.handle, plan))


def test_compile_fullgraph_with_dynamic_tokens() -> None:
    def step(hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.relu(moe_forward(hidden * 2, ids, weights, p.layer.handle)) + 1

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (3, 12, 1):
        p = make_problem(Case("c", tokens=tokens), "fp32")
        with torch.inference_mode():
            torch.testing.assert_close(compiled(p.hidden, p.ids, p.weights), step(p.hidden, p.ids, p.weights))


@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_router_dtypes(ids_dtype: torch.dtype, weights_dtype: torch.dtype) -> None:
    p = make_problem(CASE)
    p.weights = p.weights.to(weights_dtype)
    result = moe_forward(p.hidden, p.ids.to(ids_dtype), p.weights, p.layer.handle)
    assert rel_error(result, p.exact()) <= 3e-6


def test_any_strides_of_any_argument() -> None:
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


def test_functional_inputs_are_not_written() -> None:
    p = make_problem(CASE)
    before = [tensor.clone() for tensor in (p.hidden, p.ids, p.weights)]
    first = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    second = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    assert first.data_ptr() != second.data_ptr() and torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, (p.hidden, p.ids, p.weights), strict=True))


def test_torch_s_thread_count_holds_and_does_not_change_a_bit() -> None:
    """The layer is large enough that the work is shared (see kSerialFlops)."""
    p = make_problem(Case("threads", tokens=64, hidden=256, inter=128, experts=8, topk=2), "bf16")
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append(moe_forward(p.hidden, p.ids, p.weights, p.layer.handle))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_many_python_threads_at_once() -> None:
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


def test_a_hundred_thousand_tokens_in_chunks() -> None:
    """More rows than one chunk keeps; each token's result must not depend on the others."""
    p = make_problem(Case("long", tokens=100_000, hidden=40, inter=600, experts=7, topk=2), "fp32")
    result = moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)
    for start in (0, 49_990, 99_980):
        part = slice(start, start + 20)
        alone = moe_forward(p.hidden[part], p.ids[part], p.weights[part], p.layer.handle)
        assert torch.equal(result[part], alone)
    assert p.layer.stats()["rows"] == 200_000 + 3 * 40


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


def _arguments() -> dict[str, object]:
    p = make_problem(CASE)
    return {
        "hidden": p.hidden,
        "topk_ids": p.ids,
        "topk_weights": p.weights,
        "layer": p.layer.handle,
        "keep": p,
    }


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden", lambda x: x[:, :-1], r"hidden of shape \[T, H\]; got \[12, 63\]"),
        ("hidden", lambda x: x[None], r"got \[1, 12, 64\]"),
        ("hidden", lambda x: x.double(), "hidden of bf16, fp16 or fp32"),
        ("topk_ids", lambda x: x[:-1], r"topk_ids of shape \[T, K\]; got \[11, 2\]"),
        ("topk_ids", lambda x: x.short(), "topk_ids of int32 or int64"),
        ("topk_weights", lambda x: x[:, :1], r"shape of topk_ids; got \[12, 1\]"),
        ("topk_weights", lambda x: x.double(), "topk_weights of fp32, bf16 or fp16"),
        ("layer", lambda x: x + 1000, "handle of a registered expert layer"),
        ("layer", lambda x: -1, "handle of a registered expert layer"),
        ("plan", lambda x: torch.zeros(5, dtype=torch.int32), r"plan of shape \[E\]"),
        ("plan", lambda x: torch.zeros(6), r"plan of shape \[E\]"),
        (
            "plan",
            lambda x: torch.full((6,), 1, dtype=torch.int32),
            r"domains this machine has: 0 \(CPU\); got 1",
        ),
    ],
)
def test_bad_arguments_get_one_line(name: str, change: object, message: str) -> None:
    arguments = _arguments()
    keep = arguments.pop("keep")
    arguments[name] = change(arguments.get(name))  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=message) as error:
        moe_forward(**arguments)  # type: ignore[arg-type]
    line = str(error.value).splitlines()[0]
    assert all(word in line for word in ("trimoe: expected", "; got ", "; try ")), keep


def test_a_closed_layer_is_an_error_not_a_crash() -> None:
    p = make_problem(CASE)
    p.layer.close()
    p.layer.close()
    with pytest.raises(RuntimeError, match="registered expert layer"):
        moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)


def test_layers_are_freed_with_their_owner() -> None:
    layer = ExpertLayer(LayerSpec(2, 16, 16))
    handle = layer.handle
    del layer
    with pytest.raises(ValueError, match="registered expert layer"):
        _cpu.layer_stats(handle)


def _python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


@pytest.mark.parametrize("isa", [e["isa"] for e in _cpu.kernel_table() if e["supported"]])
def test_isa_override(isa: str) -> None:
    result = _python("from trimoe import _cpu; print(_cpu.selected_isa())", TRIMOE_CPU_ISA=isa)
    assert result.stdout.strip() == isa


def test_unknown_isa_names_the_choices() -> None:
    result = _python("from trimoe import _cpu; _cpu.selected_isa()", TRIMOE_CPU_ISA="sse9")
    assert "expected TRIMOE_CPU_ISA to name an entry" in result.stderr and "ref" in result.stderr


def test_loading_twice_is_guarded() -> None:
    """Even from two copies of the loader in one process: the second registration would crash torch."""
    code = (
        "import sys, torch, trimoe.ops as a; a.load_op()\n"
        "del sys.modules['trimoe.ops']\n"
        "import trimoe.ops as b; assert a is not b; print(b.load_op() is a.load_op())"
    )
    assert _python(code).stdout.strip() == "True"


def test_importing_is_cheap() -> None:
    code = "import sys, trimoe; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert _python(code).stdout.split() == ["False", "False"]
