"""One packed expert and its FFN, twice: in the order that docs/ndp.md prescribes, and in float64 with the
error that fp32 sums and a bf16 h may have. Both read the packed bytes and share no code with the core.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from support.cases import pack
from support.packed import Matrix, read
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.ndp.core import expert_ffn

NUMBERS = ("bf16", "fp16", "int8", "int4_g32", "int4_g64", "int4_g128")
LEAVES = 8
FP32_ROUNDING, BF16_ROUNDING = 2.0**-24, 2.0**-8


@dataclass(frozen=True)
class Case:
    """T tokens, H wide, I inside; number is one of NUMBERS."""

    number: str = "bf16"
    hidden: int = 48
    inter: int = 80
    tokens: int = 3
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    options: dict[str, float] = field(default_factory=dict, hash=False)  # alpha and limit

    @property
    def spec(self) -> LayerSpec:
        """What is packed; fp16 under the name of bf16."""
        weights, _, group = self.number.partition("_g")
        return LayerSpec(
            1,
            self.hidden,
            self.inter,
            weights={"fp16": "bf16"}.get(weights, weights),
            group=int(group or 0),
            activation=self.activation,
            gated=self.gated,
            bias=self.bias,
            **self.options,  # type: ignore[arg-type]
        )


@dataclass
class Problem:
    """A case with x, bf16 [T, H], and the packed expert."""

    case: Case
    x: torch.Tensor
    layer: ExpertLayer

    def run(self, ranks: int = 4, *, x: torch.Tensor | None = None, **changed: Any) -> torch.Tensor:
        """What the core yields, fp32 [T, H]."""
        case, rows = self.case, self.x if x is None else x
        arguments: dict[str, Any] = {
            "hidden": case.hidden,
            "inter": case.inter,
            "number": case.number.partition("_")[0],
            "group": case.spec.group,
            "activation": case.activation,
            "gated": case.gated,
            "bias": case.bias,
            **case.options,
            "ranks": ranks,
        }
        weights = changed.pop("weights", self.layer.memory)
        found = expert_ffn(weights, bytes_of(rows), **{**arguments, **changed})
        return torch.tensor(list(memoryview(found).cast("f"))).view(rows.shape)

    def matrices(self) -> tuple[dict[str, Matrix], dict[str, torch.Tensor]]:
        """Codes and scales as packed, in float64; of a larger expert that was packed, what the case has."""
        matrices, biases = read(self.layer, 0)
        for name, matrix in matrices.items():
            rows, k = (self.case.inter, self.case.hidden)[:: -1 if name == "down" else 1]
            matrix.codes, matrix.scales = matrix.codes[:rows, :k], matrix.scales[:rows]
        if self.case.number == "fp16":
            for matrix in matrices.values():
                matrix.codes = matrix.codes.bfloat16().view(torch.float16).double()
        return matrices, biases


def bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def make_problem(case: Case, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float) -> torch.Tensor:
        values = torch.randn(1, *shape, generator=generator) * scale
        return values.half().view(torch.bfloat16) if case.number == "fp16" else values.bfloat16()

    h, i = case.hidden, case.inter
    parts = {"up": random(i, h, scale=h**-0.5), "down": random(h, i, scale=i**-0.5)}
    if case.gated:
        parts["gate"] = random(i, h, scale=2 * h**-0.5)
    if case.bias:
        for name, size in {"gate": i, "up": i, "down": h}.items():
            if name in parts:
                parts[f"{name}_bias"] = torch.randn(1, size, generator=generator) * 0.3
    x = torch.randn(case.tokens, h, generator=generator).bfloat16()
    return Problem(case, x, pack(case.spec, parts))


def leaf_bounds(case: Case) -> list[int]:
    """Where the leaves of I begin, and the end."""
    width = 16 if case.gated else 32
    panels = -(-case.inter // width)
    return [min(panels * leaf // LEAVES * width, case.inter) for leaf in range(LEAVES + 1)]


def in_order(problem: Problem, scale: float = 1.0) -> torch.Tensor:
    """The FFN in fp32, one addition after the other."""
    case, x = problem.case, problem.x.float()
    matrices, biases = problem.matrices()

    def sums(name: str) -> torch.Tensor:
        found = _sum_in_order(matrices[name], x, 0, case.hidden)
        return found + biases[f"{name}_bias"].float() if case.bias else found

    up = sums("up")
    h = activation(case, sums("gate") if case.gated else None, up).float().bfloat16().float()
    tree = [
        _sum_in_order(matrices["down"], h[:, a:b], a, b) for a, b in itertools.pairwise(leaf_bounds(case))
    ]
    while len(tree) > 1:
        tree = [left + right for left, right in zip(tree[::2], tree[1::2], strict=True)]
    y = tree[0] + biases["down_bias"].float() if case.bias else tree[0]
    return y * torch.tensor(scale)


def _sum_in_order(matrix: Matrix, x: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    """x [T, end - begin] times the codes of those k: a sum per group, times its scale, groups in order."""
    codes, scales = matrix.codes.T.float().contiguous(), matrix.scales.float()
    x, total = x.T.contiguous()[:, :, None], torch.zeros(len(x), codes.shape[1])
    for group in range(begin // matrix.group, -(-end // matrix.group)):
        part = torch.zeros_like(total)
        for k in range(max(begin, group * matrix.group), min(end, (group + 1) * matrix.group)):
            part = part + x[k - begin] * codes[k]
        total = total + part * scales[None, :, group]
    return total


def handbook_erf(x: torch.Tensor) -> torch.Tensor:
    """Abramowitz and Stegun 7.1.26, which is within 1.5e-7."""
    t = 1 / (1 + 0.3275911 * x.abs())
    factors = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    return x.sign() * (1 - sum(a * t ** (n + 1) for n, a in enumerate(factors)) * torch.exp(-x * x))


def activation(
    case: Case,
    gate: torch.Tensor | None,
    up: torch.Tensor,
    erf: Callable[[torch.Tensor], torch.Tensor] = handbook_erf,
) -> torch.Tensor:
    """h in float64."""
    up = up.double()
    gate = up if gate is None else gate.double()
    if case.activation == "swiglu_oai":
        alpha, limit = (torch.tensor(case.options.get(*one)) for one in (("alpha", 1.702), ("limit", 7.0)))
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (up + 1) * gate / (1 + torch.exp(-alpha.double() * gate))
    functions = {
        "silu": lambda x: x / (1 + torch.exp(-x)),
        "gelu": lambda x: 0.5 * x * (1 + erf(x * 0.5**0.5)),
        "gelu_tanh": lambda x: x / (1 + torch.exp(-((8 / torch.pi) ** 0.5) * (x + 0.044715 * x**3))),
        "relu2": lambda x: torch.relu(x) ** 2,
    }
    act = functions[case.activation](gate)
    return act * up if case.gated else act


def exact(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """The FFN in float64 from the packed weights, and how far off each element may be.

    A sum of n products in fp32, in any order, is off by at most gamma(n) times the sum of their magnitudes;
    bf16 rounds h once; the rest is the slope of the activation.
    """
    case, x = problem.case, problem.x.double()
    matrices, biases = problem.matrices()
    weights = {name: matrix.dequantised() for name, matrix in matrices.items()}
    none = torch.zeros(1, dtype=torch.float64)

    def linear(name: str, rows: torch.Tensor, error: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        w, bias = weights[name], biases.get(f"{name}_bias", none)
        slack = torch.zeros_like(rows) if error is None else error
        # Each k adds once to its sum; then scale, group, leaf, tree, bias and router weight.
        n = w.shape[1] + matrices[name].scales.shape[1] + 2 * LEAVES
        gamma = n * FP32_ROUNDING / (1 - n * FP32_ROUNDING)
        magnitude = (rows.abs() + slack) @ w.abs().T + bias.abs()
        return rows @ w.T + bias, gamma * magnitude + slack @ w.abs().T

    up, up_error = linear("up", x)
    gate, gate_error = linear("gate", x) if case.gated else (None, up_error)
    h = activation(case, gate, up, torch.erf)
    error = _activation_error(case, up if gate is None else gate, gate_error, up, up_error)
    error = error + (h.abs() + error) * (FP32_ROUNDING + BF16_ROUNDING)
    return linear("down", h, error)


def _activation_error(
    case: Case, gate: torch.Tensor, gate_error: torch.Tensor, up: torch.Tensor, up_error: torch.Tensor
) -> torch.Tensor:
    """Of act(gate) * up, from the errors of both; x * sigmoid(x) has slopes of at most 1.1, gelu of 1.13."""
    slope = 2 * (gate.abs() + gate_error) if case.activation == "relu2" else 1.13
    handbook = 0.75e-7 * (gate.abs() + gate_error) if case.activation == "gelu" else 0.0
    if not case.gated:
        return slope * gate_error + handbook
    if case.activation == "swiglu_oai":
        up = up.abs() + 1
    act = activation(
        case, gate, torch.zeros_like(gate) if case.activation == "swiglu_oai" else torch.ones_like(gate)
    )
    return (slope * gate_error + handbook) * (up.abs() + up_error) + act.abs() * up_error
