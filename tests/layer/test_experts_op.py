"""torch.ops.trimoe.experts: parameters packed once, and again whenever they change, however they do."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support.subprocesses import run_python
from trimoe import _cpu
from trimoe.errors import InputError
from trimoe.layer import experts_op
from trimoe.layer.experts_op import Layout, forget, layer_of
from trimoe.layer.op import load_op

load_op()
EXPERTS, HIDDEN, INTER, TOKENS, TOPK = 4, 48, 40, 9, 2
# Tags: gated, biases, transposed, concatenated.
LAYOUTS = {
    "qwen3": (Layout("silu", True, 1.702, 7.0, False, True), False),
    "gpt_oss": (Layout("swiglu_oai", True, 1.702, 7.0, True, False), True),
    "no gate": (Layout("relu2", False, 1.702, 7.0, False, True), False),
    "no gate, transposed": (Layout("relu2", False, 1.702, 7.0, True, True), True),
    "interleaved": (Layout("silu", True, 1.702, 7.0, False, False), True),
}


class Experts(nn.Module):
    """The op with parameters in one of LAYOUTS."""

    def __init__(self, name: str = "qwen3", dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layout, bias = LAYOUTS[name]
        rows = 2 * INTER if self.layout.gated else INTER
        shapes: dict[str, tuple[int, ...]] = {
            "first": (EXPERTS, rows, HIDDEN),
            "down": (EXPERTS, HIDDEN, INTER),
        }
        if self.layout.transposed:
            shapes = {key: (e, k, n) for key, (e, n, k) in shapes.items()}
        if bias:
            shapes |= {"first_bias": (EXPERTS, rows), "down_bias": (EXPERTS, HIDDEN)}
        generator = torch.Generator().manual_seed(0)
        for key, shape in shapes.items():
            values = torch.randn(shape, generator=generator) * 0.3
            self.register_parameter(key, nn.Parameter(values.to(dtype)))

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        parameters = [
            getattr(self, key) for key in ("first", "down", "first_bias", "down_bias") if hasattr(self, key)
        ]
        result: torch.Tensor = torch.ops.trimoe.experts(hidden, ids, weights, parameters, *self.layout)
        return result

    def exact(self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """By loops over tokens in fp32, from the parameters as they are."""
        x, out = hidden.float(), torch.zeros(hidden.shape)
        for token in range(len(x)):
            for expert, weight in zip(ids[token].tolist(), weights[token], strict=True):
                parts = {key: value[expert].detach().float() for key, value in self.named_parameters()}
                first, down = (
                    (parts[key].T if self.layout.transposed else parts[key]) for key in ("first", "down")
                )
                y = first @ x[token] + parts.get("first_bias", 0)
                if not self.layout.gated:
                    h = torch.relu(y) ** 2
                else:
                    gate, up = y.chunk(2) if self.layout.concatenated else (y[::2], y[1::2])
                    if self.layout.activation == "swiglu_oai":
                        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0) + 1
                        h = up * gate * torch.sigmoid(1.702 * gate)
                    else:
                        h = torch.nn.functional.silu(gate) * up
                out[token] += weight * (down @ h + parts.get("down_bias", 0))
        return out


def _call(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.rand(TOKENS, EXPERTS, generator=generator).topk(TOPK).indices
    return (
        torch.randn(TOKENS, HIDDEN, generator=generator),
        ids,
        torch.rand(TOKENS, TOPK, generator=generator),
    )


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every packing."""
    done: list[int] = []
    pack = experts_op._pack

    def counted(*arguments: Any) -> Any:
        done.append(1)
        return pack(*arguments)

    monkeypatch.setattr(experts_op, "_pack", counted)
    return done


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_computed(name: str) -> None:
    module, call = Experts(name), _call()
    with torch.no_grad():
        torch.testing.assert_close(module(*call), module.exact(*call), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_opcheck_passes(name: str) -> None:
    module = Experts(name).requires_grad_(False)
    arguments = (*_call(), list(module.parameters()), *module.layout)
    torch.library.opcheck(torch.ops.trimoe.experts.default, arguments)


def _optimizer(module: Experts) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def _load(assign: bool) -> Callable[[Experts], None]:
    def change(module: Experts) -> None:
        state = {key: value * 1.5 for key, value in module.state_dict().items()}
        module.load_state_dict(state, assign=assign)

    return change


def _numpy(module: Experts) -> None:
    module.down.detach().numpy()[:] *= 1.5


def _storage(module: Experts) -> None:
    """As FSDP does: the storage is taken away, brought back and filled without a count."""
    kept, storage = module.first.detach() * 1.5, module.first.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    module.first.data.copy_(kept)


def _same_address(module: Experts) -> None:
    """Other values at the address that was packed: only that the storage is another one tells."""
    old = module.down.detach().clone()
    raw = torch.empty(module.down.numel() + 16)
    for factor in (1.0, 1.5):  # the second time a new storage over the same memory
        view = torch.frombuffer(raw.numpy(), dtype=torch.float32)[: old.numel()].view(old.shape)
        view.copy_(old * factor)
        module.down.data = view
        if factor == 1.0:
            with torch.no_grad():
                module(*_call())


def _inside_inference(module: Experts) -> None:
    with torch.inference_mode():
        module.first.mul_(1.5)


CHANGES: dict[str, Callable[[Experts], Any]] = {
    "in place": lambda m: torch.no_grad()(m.first.mul_)(1.5),
    "one value in place": lambda m: torch.no_grad()(m.first[0, 0].fill_)(9.0),
    "down in place": lambda m: torch.no_grad()(m.down.add_)(1.0),
    "bias in place": lambda m: torch.no_grad()(m.down_bias.add_)(1.0),
    "under inference mode": _inside_inference,
    "data in place": lambda m: m.first.data.mul_(1.5),
    "data replaced": lambda m: setattr(m.first, "data", m.first.data * 1.5),
    "parameter replaced": lambda m: setattr(m, "down", nn.Parameter(m.down.detach() * 1.5)),
    "load_state_dict": _load(assign=False),
    "load_state_dict, assigned": _load(assign=True),
    "set_": lambda m: torch.no_grad()(m.first.set_)(m.first.detach() * 1.5),
    "optimizer": _optimizer,
    "numpy": _numpy,
    "storage resized": _storage,
    "same address": _same_address,
    "to bf16": lambda m: m.to(torch.bfloat16),
    "tied": lambda m: torch.no_grad()(next(iter(nn.ParameterList([m.first]))).mul_)(1.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["eager", "compiled"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_parameters_are_packed_again(change: str, way: str) -> None:
    torch._dynamo.reset()
    module, call = Experts("interleaved"), _call()
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if way == "compiled" else module
    with torch.no_grad():
        before = run(*call)
        CHANGES[change](module)
        after = run(*call)
        tolerance = 3e-2 if module.first.dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(after, module.exact(*call), atol=tolerance, rtol=tolerance)
    assert not torch.equal(before, after)


def test_parameters_made_under_inference_mode_are_packed_anew() -> None:
    """torch counts no writes to those at all."""
    with torch.inference_mode():
        module, call = Experts(), _call()
        for factor in (1.0, 1.5):
            module.first.mul_(factor)
            torch.testing.assert_close(module(*call), module.exact(*call), atol=1e-4, rtol=1e-4)


def test_functional_call_uses_what_it_is_given(packings: list[int]) -> None:
    module, call = Experts(), _call()
    with torch.no_grad():
        own = module(*call)
        for factor in (1.5, 2.0):  # the second may lie where the first did
            other = {"down": module.down.detach() * factor}
            assert torch.allclose(torch.func.functional_call(module, other, call), own * factor, rtol=1e-4)
        assert torch.equal(module(*call), own)


def test_a_small_write_that_torch_does_not_count_is_told() -> None:
    """The limit of what is noticed: one value among many, through `.data`."""
    module, call = Experts(), _call()
    call[1][0, 0] = 1
    with torch.no_grad():
        before = module(*call)
        module.first.data[1, 3, 5] += 1
        assert torch.equal(module(*call), before)
        forget(module.first)
        torch.testing.assert_close(module(*call), module.exact(*call), atol=1e-4, rtol=1e-4)


def test_what_does_not_change_is_packed_once(packings: list[int]) -> None:
    torch._dynamo.reset()
    module = Experts("gpt_oss")
    ways = [module, torch.compile(module, fullgraph=True, backend="aot_eager")]
    ways.append(torch.export.export(module, _call(), strict=False).module())
    ways.append(torch.export.export(module, _call(), strict=True).module())
    with torch.no_grad():
        for way in ways:
            for seed in range(3):
                torch.testing.assert_close(
                    way(*_call(seed)), module.exact(*_call(seed)), atol=1e-4, rtol=1e-4
                )
    assert len(packings) == 1


@pytest.mark.slow
def test_the_packed_layer_goes_with_its_parameters() -> None:
    module = Experts()
    with torch.no_grad():
        module(*_call())
    handle = layer_of(list(module.parameters()), module.layout).handle
    assert _cpu.layer_sizes(handle) == (EXPERTS, HIDDEN)
    del module
    gc.collect()
    with pytest.raises(InputError, match="open ExpertLayer"):
        _cpu.layer_sizes(handle)


def test_threads_that_come_first_pack_once(packings: list[int]) -> None:
    """One of them packs, the others wait: were two layers made, one would be gone while it is called."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            _come_first(8)
    finally:
        sys.setswitchinterval(interval)
    assert len(packings) == 20


def _come_first(threads: int) -> None:
    module, call, results, start = Experts(), _call(), [], threading.Barrier(threads)

    def work() -> None:
        start.wait()
        with torch.no_grad():
            results.append(module(*call))

    _run_threads([work] * threads)
    assert len(results) == threads
    for result in results:
        torch.testing.assert_close(result, module.exact(*call), atol=1e-4, rtol=1e-4)


def test_weights_that_change_while_others_call() -> None:
    """Whoever calls meanwhile has the old or the new weights or some of both, and never an error."""
    module, call, failures, done = Experts(), _call(), [], threading.Event()

    def work() -> None:
        while not done.is_set():
            try:
                with torch.no_grad():
                    assert module(*call).isfinite().all()
            except Exception as error:
                failures.append(error)

    def change() -> None:
        for _ in range(60):
            with torch.no_grad():
                module.first.mul_(1.01)
                module.down.data.mul_(0.99)
        done.set()

    _run_threads([work] * 6 + [change])
    assert not failures
    with torch.no_grad():
        torch.testing.assert_close(module(*call), module.exact(*call), atol=1e-4, rtol=1e-4)


def _run_threads(bodies: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_an_exported_module_runs_in_another_process(tmp_path: Path) -> None:
    """It holds its weights and no handle."""
    module, call = Experts("gpt_oss"), _call()
    program = torch.export.export(module, call, strict=False)
    torch.export.save(program, tmp_path / "experts.pt2")
    torch.save((call, module.exact(*call)), tmp_path / "expected.pt")
    out = run_python(
        "import torch, trimoe.layer.op\n"
        f"run = torch.export.load({str(tmp_path / 'experts.pt2')!r}).module()\n"
        f"call, expected = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        "torch.testing.assert_close(run(*call), expected, atol=1e-4, rtol=1e-4)\nprint('right')\n"
    )
    assert out == "right\n"


def test_derivatives_are_refused_for_every_argument() -> None:
    module, call = Experts(), _call()
    for frozen in (module, call):  # a gradient for the weights alone, for hidden alone
        hidden = call[0].clone().requires_grad_(frozen is module)
        module.requires_grad_(frozen is not module)
        result = module(hidden, *call[1:])
        assert result.requires_grad
        with pytest.raises(NotImplementedError, match="expected inference"):
            result.sum().backward()
    module.requires_grad_(False)
    with pytest.raises(NotImplementedError, match="expected inference"):
        torch.func.jvp(lambda x: module(x, *call[1:]), call[:1], call[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda call: (call[0][:, :-1], *call[1:]), r"hidden of shape \[T, H\]; got \[9, 47\]"),
        (lambda call: (call[0].double(), *call[1:]), "hidden of bf16, fp16 or fp32; got float64"),
        (lambda call: (call[0].to("meta"), *call[1:]), "on the CPU; got hidden on meta"),
        (lambda call: (call[0], call[1][:-1], call[2]), r"topk_ids of shape \[T, K\]; got \[8, 2\]"),
    ],
)
@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_bad_calls_are_refused_alike(change: Any, message: str, way: str) -> None:
    torch._dynamo.reset()
    module = Experts().requires_grad_(False)
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if way == "compiled" else module
    with pytest.raises(Exception, match=message):
        run(*change(_call()))


def test_bad_parameters_are_errors() -> None:
    with torch.no_grad():
        with pytest.raises(InputError, match="two parameters, or four with biases; got 1"):
            torch.ops.trimoe.experts(*_call(), [Experts().down], *LAYOUTS["qwen3"][0])
        with pytest.raises(InputError, match="expert weights of fp32, bf16 or fp16; got float64"):
            Experts(dtype=torch.float64)(*_call())
        module = Experts()
        module.down.untyped_storage().resize_(0)
        with pytest.raises(InputError, match="whose storage holds all its elements; got 0 bytes"):
            module(*_call())


def test_on_meta_only_shapes_are_computed() -> None:
    module, call = Experts().to("meta"), [tensor.to("meta") for tensor in _call()]
    assert module(*call).shape == (TOKENS, HIDDEN) and module(*call).is_meta
