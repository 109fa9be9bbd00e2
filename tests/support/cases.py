"""The one list of layer cases: every entry of the kernel table is tested on all of it.

A case has its weights as the model defines them, the packed layer made from them, and the exact
result in float64 by loops over experts that share no code with the core: from the weights as they are
packed, with the roundings of activations that a format prescribes and no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from support.packed import decode
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import source_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Every format and every variant of one, as arguments of LayerSpec.
FORMATS: dict[str, dict[str, Any]] = {
    "fp32": {"weights": "fp32"},
    "bf16": {"weights": "bf16"},
    "int8": {"weights": "int8"},
    "int4": {"weights": "int4"},
    "int4_g64": {"weights": "int4", "group": 64},
    "int4_g32": {"weights": "int4", "group": 32},
    "int4_a16": {"weights": "int4", "activations": "bf16"},
    "int4_g32_a16": {"weights": "int4", "group": 32, "activations": "bf16"},
    "fp8": {"weights": "fp8"},
    "mxfp4": {"weights": "mxfp4"},
}
INTEGER = [name for name in FORMATS if name.startswith("int") and not name.endswith("a16")]


@dataclass(frozen=True)
class Case:
    """T tokens, K of E experts each, H wide, I inside."""

    name: str
    tokens: int = 7
    hidden: int = 64
    inter: int = 48
    experts: int = 5
    topk: int = 2
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    routing: str = "random"  # "one" expert gets all, "skip" some ids outside [0, E), "none": all outside
    options: dict[str, float] = field(default_factory=dict, hash=False)

    def spec(self, name: str) -> LayerSpec:
        """The layer in one of FORMATS."""
        return LayerSpec(
            self.experts,
            self.hidden,
            self.inter,
            activation=self.activation,
            gated=self.gated,
            bias=self.bias,
            **self.options,
            **FORMATS[name],
        )


CASES = [
    Case("plain"),
    Case("one_token", tokens=1),
    Case("no_tokens", tokens=0),
    Case("odd_everything", tokens=13, hidden=37, inter=29, experts=3),
    Case("smallest", tokens=2, hidden=1, inter=1, experts=1, topk=1),
    Case("tile_minus_one", tokens=11, hidden=31, inter=15),
    Case("tile_plus_one", tokens=25, hidden=33, inter=17),
    Case("many_panels", tokens=3, hidden=290, inter=210, experts=4),
    Case("one_hot_expert", tokens=150, experts=6, routing="one"),
    Case("all_experts", tokens=9, experts=6, topk=6),
    Case("skipped_ids", tokens=40, experts=6, topk=3, routing="skip"),
    Case("nothing_routed", tokens=4, routing="none"),
    Case("rows_1_to_24", tokens=300, experts=24, topk=1, routing="ramp"),
    Case("bias", tokens=20, hidden=45, inter=35, bias=True),
    Case("gelu", activation="gelu", tokens=30),
    Case("gelu_tanh", activation="gelu_tanh", tokens=30),
    Case("gpt_oss", activation="swiglu_oai", bias=True, tokens=30, hidden=72, inter=40),
    Case(
        "gpt_oss_limits", activation="swiglu_oai", bias=True, tokens=30, options={"alpha": 0.9, "limit": 0.3}
    ),
    Case("relu2_no_gate", activation="relu2", gated=False, tokens=30, hidden=70, inter=50),
    Case("silu_no_gate_bias", gated=False, bias=True, tokens=30, hidden=40, inter=33),
]


@dataclass
class Problem:
    """A case with tensors: hidden [T, H], ids and router weights [T, K], expert weights, packed layer."""

    case: Case
    name: str  # of FORMATS
    hidden: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    parts: dict[str, Any]
    layer: ExpertLayer

    def exact(self) -> torch.Tensor:
        """The result in float64 [T, H], from the packed weights."""
        case = self.case
        out = torch.zeros(self.hidden.shape, dtype=torch.float64)
        x = rounded_rows(self.name, self.hidden)
        for expert in self.ids.unique().tolist():
            if not 0 <= expert < case.experts:
                continue
            token, slot = (self.ids == expert).nonzero(as_tuple=True)
            part = decode(self.layer, expert)
            up = F.linear(x[token], part["up"], part.get("up_bias"))
            gate = F.linear(x[token], part["gate"], part.get("gate_bias")) if case.gated else None
            h = rounded_rows(self.name, _activate(case, gate, up).to(self.h_dtype))
            y = F.linear(h, part["down"], part.get("down_bias"))
            out.index_add_(0, token, y * self.weights[token, slot, None].double())
        return out

    @property
    def h_dtype(self) -> torch.dtype:
        """What the result of the activation is rounded to."""
        return torch.float64 if self.name == "fp32" else torch.bfloat16


def rounded_rows(name: str, rows: torch.Tensor) -> torch.Tensor:
    """Rows [T, K] in float64 as a format multiplies them: in 8 bits with a scale, in bf16, or as they are."""
    if name in INTEGER:
        codes, scales = quantized_rows(rows)
        return codes * scales.double()
    return rows.double() if name == "fp32" else rows.to(torch.bfloat16).double()


def quantized_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes in float64 and scales in fp32 [T, 1] of rows: the largest magnitude is 127."""
    largest = rows.float().abs().amax(dim=1, keepdim=True)
    most = torch.full_like(largest, 127)  # a tensor: torch turns a number divided by one into a product
    inverse = torch.where(largest < 1e-35, 0.0, most / largest)
    return (rows.float() * inverse).round().double(), largest / most


def _activate(case: Case, gate: torch.Tensor | None, up: torch.Tensor) -> torch.Tensor:
    if case.activation == "swiglu_oai":
        assert gate is not None
        alpha, limit = case.options.get("alpha", 1.702), case.options.get("limit", 7.0)
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (up + 1) * gate * torch.sigmoid(alpha * gate)
    functions = {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu2": lambda x: F.relu(x) ** 2,
    }
    function = functions[case.activation]
    return function(up) if gate is None else function(gate) * up


def make_problem(case: Case, name: str = "fp32", hidden: str | None = None, seed: int = 0) -> Problem:
    """Tensors of a case; name is one of FORMATS, hidden the dtype of the activations."""
    dtype = DTYPES["fp32" if name == "fp32" else "bf16"]
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    e, h, i = case.experts, case.hidden, case.inter
    parts = {"up": random(e, i, h, scale=h**-0.5), "down": random(e, h, i, scale=i**-0.5)}
    if case.gated:
        parts["gate"] = random(e, i, h, scale=2 * h**-0.5)
    if case.bias:
        parts |= {"up_bias": random(e, i, scale=0.3), "down_bias": random(e, h, scale=0.3)}
        if case.gated:
            parts["gate_bias"] = random(e, i, scale=0.3)
    x = torch.randn(case.tokens, h, generator=generator).to(DTYPES[hidden] if hidden else dtype)
    router = torch.rand(case.tokens, case.topk, generator=generator) + 0.1
    return Problem(case, name, x, _ids(case, generator), router, parts, pack(case.spec(name), parts))


def _ids(case: Case, generator: torch.Generator) -> torch.Tensor:
    shape = (case.tokens, case.topk)
    if case.routing == "one":
        return torch.full(shape, case.experts - 2)
    if case.routing == "none":
        return torch.tensor([-1, case.experts, -(2**40), 2**40])[
            torch.randint(0, 4, shape, generator=generator)
        ]
    if case.routing == "ramp":  # expert e gets e + 1 tokens: every height of a register tile occurs
        ramp = torch.repeat_interleave(torch.arange(case.experts), torch.arange(case.experts) + 1)
        return ramp[torch.randperm(case.tokens, generator=generator)][:, None]
    scores = torch.rand(case.tokens, case.experts, generator=generator)
    ids = scores.topk(case.topk, dim=1).indices
    if case.routing == "skip":
        ids[torch.rand(shape, generator=generator) < 0.4] = -1
        ids[torch.rand(shape, generator=generator) < 0.2] = case.experts
    return ids


def pack(spec: LayerSpec, parts: dict[str, torch.Tensor]) -> ExpertLayer:
    """Packs stacked tensors [E, ...] as they are."""
    layer = ExpertLayer(spec)
    names = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias")
    for expert in range(spec.experts):
        sources = [source_of(parts[name][expert]) if name in parts else None for name in names]
        layer.pack_expert(expert, *sources)  # type: ignore[arg-type]
    return layer


def rel_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative Frobenius error; 0 for two empty or zero tensors."""
    difference = (result.double() - exact).norm()
    return float(difference / exact.norm()) if exact.norm() > 0 else float(difference)
