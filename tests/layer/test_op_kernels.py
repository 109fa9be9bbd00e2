"""What `moe_forward` refuses, it refuses alike: eager, on fake tensors, compiled and exported.

And derivatives: none is computed, and none looks as if it was zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from support.cases import Case, make_problem
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward

CASE = Case("arguments", tokens=12, hidden=64, inter=40, experts=6, topk=2)
PLAN = torch.zeros(CASE.experts, dtype=torch.int32)
NAMES = ("hidden", "topk_ids", "topk_weights", "layer", "plan")


class _Call(torch.nn.Module):
    """The op with everything that is no tensor fixed, as `torch.export` wants it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.fixed = {k: v for k, v in arguments.items() if not isinstance(v, torch.Tensor)}

    def forward(self, **tensors: torch.Tensor) -> torch.Tensor:
        return moe_forward(**tensors, **self.fixed)


def _tensors(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in arguments.items() if isinstance(v, torch.Tensor)}


def _eager(arguments: dict[str, Any]) -> torch.Tensor:
    return moe_forward(**arguments)


def _fake(arguments: dict[str, Any]) -> torch.Tensor:
    with FakeTensorMode() as mode:
        fakes = {name: mode.from_tensor(tensor) for name, tensor in _tensors(arguments).items()}
        return moe_forward(**{**arguments, **fakes})


def _compiled(arguments: dict[str, Any]) -> torch.Tensor:
    torch._dynamo.reset()
    run = torch.compile(_Call(arguments), fullgraph=True, backend="aot_eager")
    result: torch.Tensor = run(**_tensors(arguments))
    return result


def _exported(arguments: dict[str, Any]) -> torch.Tensor:
    torch._dynamo.reset()
    program = torch.export.export(_Call(arguments), (), _tensors(arguments), strict=False)
    result: torch.Tensor = program.module()(**_tensors(arguments))
    return result


WAYS = {"eager": _eager, "fake": _fake, "compiled": _compiled, "exported": _exported}


def _closed_handle() -> int:
    layer = ExpertLayer(LayerSpec(2, 16, 16))
    layer.close()
    return layer.handle


def _expanded(rows: int, cols: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor[:1, :1].expand(rows, cols)


# Which argument is wrong, how, and what the error says of it.
BAD: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    "hidden narrow": ({"hidden": lambda x: x[:, :-1]}, "hidden of shape [T, H]; got [12, 63]"),
    "hidden 3-d": ({"hidden": lambda x: x[None]}, "hidden of shape [T, H]; got [1, 12, 64]"),
    "hidden 0-d": ({"hidden": lambda x: x[0, 0]}, "hidden of shape [T, H]; got []"),
    "hidden float64": ({"hidden": lambda x: x.double()}, "hidden of bf16, fp16 or fp32; got float64"),
    "hidden complex": ({"hidden": lambda x: x.to(torch.complex64)}, "fp32; got complex64"),
    "hidden fp8": ({"hidden": lambda x: x.to(torch.float8_e4m3fn)}, "fp32; got float8_e4m3fn"),
    "hidden None": ({"hidden": lambda _: None}, "hidden as a tensor; got None"),
    "ids short": ({"topk_ids": lambda x: x[:-1]}, "topk_ids of shape [T, K]; got [11, 2]"),
    "ids 1-d": ({"topk_ids": lambda x: x[:, 0]}, "topk_ids of shape [T, K]; got [12]"),
    "ids int16": ({"topk_ids": lambda x: x.short()}, "topk_ids of int32 or int64; got int16"),
    "ids float": ({"topk_ids": lambda x: x.float()}, "topk_ids of int32 or int64; got float32"),
    "ids bool": ({"topk_ids": lambda x: x.bool()}, "topk_ids of int32 or int64; got bool"),
    "ids None": ({"topk_ids": lambda _: None}, "topk_ids as a tensor; got None"),
    "weights narrow": ({"topk_weights": lambda x: x[:, :1]}, "shape of topk_ids; got [12, 1]"),
    "weights short": ({"topk_weights": lambda x: x[:-1]}, "shape of topk_ids; got [11, 2]"),
    "weights 1-d": ({"topk_weights": lambda x: x[:, 0]}, "shape of topk_ids; got [12]"),
    "weights float64": ({"topk_weights": lambda x: x.double()}, "bf16 or fp16; got float64"),
    "weights int64": ({"topk_weights": lambda x: x.long()}, "bf16 or fp16; got int64"),
    "weights None": ({"topk_weights": lambda _: None}, "topk_weights as a tensor; got None"),
    "layer closed": ({"layer": lambda _: _closed_handle()}, "handle of an open ExpertLayer of this process"),
    "layer small": ({"layer": lambda _: 1}, "handle of an open ExpertLayer of this process; got 1;"),
    "layer negative": ({"layer": lambda _: -1}, "handle of an open ExpertLayer of this process; got -1;"),
    "layer largest": ({"layer": lambda _: 2**63 - 1}, "handle of an open ExpertLayer of this process"),
    "plan short": ({"plan": lambda x: x[:5]}, "plan of shape [E] and int32; got [5] of int32"),
    "plan 2-d": ({"plan": lambda x: x[None]}, "plan of shape [E] and int32; got [1, 6] of int32"),
    "plan int64": ({"plan": lambda x: x.long()}, "plan of shape [E] and int32; got [6] of int64"),
    "too many experts": (
        {"topk_ids": _expanded(12, 2**16 + 1), "topk_weights": _expanded(12, 2**16 + 1)},
        "at most 65536 experts per token; got 65537",
    ),
    "endless experts": (
        {"topk_ids": _expanded(12, 2**40), "topk_weights": _expanded(12, 2**40)},
        "at most 65536 experts per token; got 1099511627776",
    ),
    "too many pairs": (
        {
            "hidden": lambda x: x[:1].expand(2**30, 64),
            "topk_ids": _expanded(2**30, 2),
            "topk_weights": _expanded(2**30, 2),
        },
        "fewer than 2^31 pairs of a token and an expert in a call; got 1073741824 tokens of 2 experts",
    ),
    "too many tokens": (
        {
            "hidden": lambda x: x[:1].expand(2**31, 64),
            "topk_ids": lambda x: x[:1, :0].expand(2**31, 0),
            "topk_weights": lambda x: x[:1, :0].expand(2**31, 0),
        },
        "pairs of a token and an expert in a call; got 2147483648 tokens of 0 experts",
    ),
    **{
        f"{name} on meta": ({name: lambda x: x.to("meta")}, f"got {name} on meta")
        for name in ("hidden", "topk_ids", "topk_weights", "plan")
    },
}
# Layouts of which torch itself refuses some, in its own words. A fake tensor forgets that it is mkldnn's.
ODD: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    **{
        f"{name} sparse": ({name: lambda x: x.to_sparse()}, f"dense tensors; got {name} as sparse_coo")
        for name in ("hidden", "topk_ids", "topk_weights", "plan")
    },
    "hidden csr": ({"hidden": lambda x: x.to_sparse_csr()}, "dense tensors; got hidden as sparse_csr"),
    "weights mkldnn": (
        {"topk_weights": lambda x: x.to_mkldnn()},
        "dense tensors; got topk_weights as _mkldnn",
    ),
    "hidden quantised": (
        {"hidden": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)},
        "hidden of bf16, fp16 or fp32; got qint8",
    ),
}


def _arguments(changes: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    p = make_problem(CASE)
    values = (p.hidden, p.ids, p.weights, p.layer.handle, PLAN)
    arguments = dict(zip(NAMES, values, strict=True))
    arguments |= {name: change(arguments[name]) for name, change in changes.items()}
    _layers.append(p.layer)
    return arguments


_layers: list[ExpertLayer] = []  # a handle lives as long as its layer


@pytest.fixture(autouse=True)
def _close_layers() -> Any:
    yield
    _layers.clear()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_every_way_refuses_alike(bad: str, way: str) -> None:
    changes, message = BAD[bad]
    with pytest.raises(Exception) as error:  # torch wraps ours into its own
        WAYS[way](_arguments(changes))
    line = next(line for line in str(error.value).splitlines() if "trimoe: expected " in line)
    assert message in line and "; got " in line and "; try " in line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", ODD)
def test_odd_layouts_are_refused(bad: str, way: str) -> None:
    if (bad, way) == ("weights mkldnn", "fake"):
        assert FakeTensorMode().from_tensor(torch.zeros(2).to_mkldnn()).layout is torch.strided
        return
    changes, message = ODD[bad]
    with pytest.raises(Exception) as error:
        WAYS[way](_arguments(changes))
    assert message in str(error.value) or way != "eager"


@pytest.mark.parametrize("name", ["hidden", "topk_ids", "topk_weights", "plan"])
@pytest.mark.parametrize("device", ["cuda", "xpu", "mps"])
def test_other_devices_are_refused(device: str, name: str) -> None:
    """Fake tensors may be anywhere, whatever this machine has."""
    arguments = _arguments({})
    with FakeTensorMode() as mode:
        fakes = {key: mode.from_tensor(tensor) for key, tensor in _tensors(arguments).items()}
        fakes[name] = torch.empty(fakes[name].shape, dtype=fakes[name].dtype, device=device)
        with pytest.raises(RuntimeError, match=f"on the CPU; got {name} on {device}:0; try tensor.cpu"):
            moe_forward(**{**arguments, **fakes})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plan", [True, False])
def test_every_way_takes_what_is_right(plan: bool, way: str) -> None:
    arguments = _arguments({} if plan else {"plan": lambda _: None})
    result = WAYS[way](arguments)
    assert (result.shape, result.dtype, result.device.type) == ((12, 64), torch.float32, "cpu")
    assert result.is_contiguous()


def test_all_on_meta_is_for_shapes() -> None:
    arguments = _arguments({})
    result = moe_forward(**{**arguments, **{k: v.to("meta") for k, v in _tensors(arguments).items()}})
    assert (result.shape, result.dtype, result.device.type) == ((12, 64), torch.float32, "meta")
    arguments = _arguments({"hidden": lambda x: x[:, :-1]})
    with pytest.raises(RuntimeError, match=r"hidden of shape \[T, H\]; got \[12, 63\]"):
        moe_forward(**{**arguments, **{k: v.to("meta") for k, v in _tensors(arguments).items()}})


def test_sizes_stay_symbolic() -> None:
    """One graph for all T and K, however large: the checks leave no guard that names a number."""
    layer = make_problem(CASE).layer

    class Call(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return moe_forward(hidden, ids, weights, layer.handle)

    def problem(tokens: int, topk: int) -> tuple[torch.Tensor, ...]:
        p = make_problem(Case("symbolic", tokens=tokens, hidden=64, inter=40, experts=6, topk=topk))
        return p.hidden, p.ids, p.weights

    tokens, topk = torch.export.Dim("tokens"), torch.export.Dim("topk")
    shapes = ({0: tokens}, {0: tokens, 1: topk}, {0: tokens, 1: topk})
    program = torch.export.export(Call(), problem(12, 2), dynamic_shapes=shapes)
    for sizes in ((2, 3), (300, 6), (5, 2)):
        given = problem(*sizes)
        assert torch.equal(program.module()(*given), moe_forward(*given, layer.handle))


def test_subclasses_and_parameters_are_tensors() -> None:
    class Named(torch.Tensor):
        pass

    arguments = _arguments({})
    expected = moe_forward(**arguments)
    for kind in (lambda x: x.as_subclass(Named), torch.nn.Parameter):
        with torch.no_grad():
            result = moe_forward(**{**arguments, "hidden": kind(arguments["hidden"])})
        assert torch.equal(result.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("name", ["hidden", "topk_weights"])
def test_lazy_negatives_are_resolved(name: str) -> None:
    """torch may keep the sign of a tensor in a bit, as it does for `x.conj().imag`."""
    arguments = _arguments({})
    expected = moe_forward(**{**arguments, name: -arguments[name]})
    assert torch.equal(moe_forward(**{**arguments, name: torch._neg_view(arguments[name])}), expected)


def _jvp(f: Any, x: torch.Tensor) -> Any:
    return torch.func.jvp(f, (x,), (torch.ones_like(x),))


def _dual(f: Any, x: torch.Tensor) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return f(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))


def _backward(f: Any, x: torch.Tensor) -> Any:
    f(x.clone().requires_grad_()).sum().backward()


def _under_vmap(f: Any, x: torch.Tensor) -> Any:
    rows = x[None].clone().requires_grad_()
    torch.func.vmap(f)(rows).sum().backward()


def _functional(f: Any, x: torch.Tensor) -> Any:
    module = torch.nn.Module()
    module.register_parameter("scale", torch.nn.Parameter(torch.ones(())))
    module.forward = lambda rows: f(rows * module.scale)

    def loss(scale: torch.Tensor) -> Any:
        return torch.func.functional_call(module, {"scale": scale}, (x,)).sum()

    return torch.func.grad(loss)(torch.ones(()))


DERIVATIVES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "backward": _backward,
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "vjp": lambda f, x: torch.func.vjp(f, x)[1](torch.ones_like(f(x))),
    "jvp": _jvp,
    "jvp without grad": lambda f, x: torch.no_grad()(_jvp)(f, x),
    "linearize": lambda f, x: torch.func.linearize(f, x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "hessian": lambda f, x: torch.func.hessian(lambda y: f(y).sum())(x),
    "dual numbers": _dual,
    "backward through vmap": _under_vmap,
    "grad of functional_call": _functional,
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", ["hidden", "topk_weights"])
@pytest.mark.parametrize("how", DERIVATIVES)
def test_no_derivative_is_taken_for_zero(how: str, name: str) -> None:
    arguments = _arguments({})
    with pytest.raises(NotImplementedError, match="expected inference; got a derivative of moe_forward"):
        DERIVATIVES[how](lambda x: moe_forward(**{**arguments, name: x}), arguments[name])


def test_what_has_no_tangent_is_computed_under_every_transform() -> None:
    arguments = _arguments({})
    expected = moe_forward(**arguments)
    x = arguments["hidden"]
    result, tangent = torch.func.jvp(lambda y: moe_forward(**arguments) * y, (x,), (torch.ones_like(x),))
    assert torch.equal(result, expected * x) and torch.equal(tangent, expected)
    gradient = torch.func.grad(lambda y: (moe_forward(**arguments) * y).sum())(x)
    assert torch.equal(gradient, expected)
    weight = x.clone().requires_grad_()
    assert torch.equal(moe_forward(**{**arguments, "hidden": weight}), expected)  # a forward pass alone
    with torch.no_grad():
        assert not moe_forward(**{**arguments, "hidden": weight}).requires_grad


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_is_right() -> None:
    problems = [
        make_problem(Case("vmap", tokens=4, hidden=64, inter=40, experts=6), seed=s) for s in (0, 1, 2)
    ]
    layer = problems[0].layer.handle
    batch = [torch.stack([getattr(p, name) for p in problems]) for name in ("hidden", "ids", "weights")]
    expected = torch.stack([moe_forward(p.hidden, p.ids, p.weights, layer) for p in problems])
    assert torch.equal(torch.func.vmap(lambda *one: moe_forward(*one, layer))(*batch), expected)
