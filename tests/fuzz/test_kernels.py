"""Random layers, routings and sources on every kernel that this machine has."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from support.cases import DTYPES, FORMATS, INTEGER, Case, make_problem, rel_error
from support.fuzz import fuzz
from support.packed import decode
from trimoe import _cpu
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import forward_on
from trimoe.layer.source import StridedView, source_of

pytestmark = pytest.mark.slow

ENTRIES = [entry["isa"] for entry in _cpu.kernel_table() if entry["supported"]]
ACTIVATIONS = ["silu", "gelu", "gelu_tanh", "relu2", "swiglu_oai"]
# Of results in fp32. As in test_kernels.py, but a row of 8-bit codes that is rounded anew may be all:
# half a code of 127 in each element.
INTEGER_TOLERANCE, TOLERANCE, EXACT_TOLERANCE = 1.5e-2, 1e-3, 1e-5
IN_HALVES = {"fp32": 0.0, "bf16": 4e-3, "fp16": 5e-4}


def _size(choose: random.Random, most: int) -> int:
    """Small sizes as often as large ones, and often one beside a power of two."""
    size = int(math.exp(choose.uniform(0, math.log(most))))
    if choose.random() < 0.4:
        size = 2 ** round(math.log2(size)) + choose.choice((-1, 0, 1))
    return min(max(size, 1), most)


def _case(choose: random.Random) -> Case:
    experts = choose.randint(2, 9)
    activation = choose.choice(ACTIVATIONS)
    return Case(
        "fuzz",
        tokens=_size(choose, 90),
        hidden=_size(choose, 400),
        inter=_size(choose, 300),
        experts=experts,
        topk=choose.randint(1, min(experts, 4)),
        activation=activation,
        gated=activation == "swiglu_oai" or choose.random() < 0.7,
        bias=choose.random() < 0.3,
        routing=choose.choice(("random", "random", "one", "skip", "none")),
    )


def _tolerance(name: str, hidden: str) -> float:
    of_format = INTEGER_TOLERANCE if name in INTEGER else EXACT_TOLERANCE if name == "fp32" else TOLERANCE
    return of_format + IN_HALVES[hidden]


def _error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to what is usual where terms cancel out to less."""
    usual = 0.1 * math.sqrt(expected.numel())
    return rel_error(result, expected) * min(1.0, float(expected.norm()) / usual)


def _any_strides(choose: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """The same values in another place in memory."""
    rows, cols = tensor.shape
    row_step, col_step = choose.choice(((1, 1), (1, 2), (3, 1), (2, 2)))
    wide = torch.zeros(rows * row_step + 1, cols * col_step + 1, dtype=tensor.dtype)
    view = wide[:-1:row_step, 1::col_step] if choose.random() < 0.7 else wide.new_zeros(cols, rows).T
    return view.copy_(tensor)


@fuzz(rounds=60)
def test_every_entry_agrees_with_ref(seed: int) -> None:
    choose = random.Random(seed)
    case, name, hidden = _case(choose), choose.choice(list(FORMATS)), choose.choice(list(DTYPES))
    problem = make_problem(case, name, hidden, seed)
    x = _any_strides(choose, problem.hidden)
    # With an activation that rounds once and router weights of one, integers leave no freedom at all.
    to_the_bit = name in INTEGER and case.activation == "relu2" and not case.gated and not case.bias
    weights = problem.weights.fill_(1) if to_the_bit else problem.weights
    call = (x, problem.ids, weights, problem.layer.handle)
    ref = forward_on("ref", *call, choose.randint(1, 4))
    what = f"{name}, {hidden}, {case}"
    assert _error(ref, problem.exact()) <= _tolerance(name, hidden), what
    for isa in ENTRIES:
        result = forward_on(isa, *call, threads := choose.randint(1, 5))
        assert _error(result, ref.double()) <= _tolerance(name, hidden), f"{what}, {isa}"
        assert not to_the_bit or torch.equal(result, ref), f"{what}, {isa}, to the bit"
        again = forward_on(isa, *call, threads % 5 + 1)
        assert torch.equal(result, again), f"{what}, {isa}, {threads} threads"


def _layer(spec: LayerSpec, sources: dict[str, StridedView]) -> ExpertLayer:
    layer = ExpertLayer(spec)
    layer.pack_expert(0, sources.get("gate"), sources["up"], sources["down"])
    return layer


def _shapes(choose: random.Random, most: int) -> tuple[int, int, dict[str, tuple[int, int]]]:
    hidden, inter = _size(choose, most), _size(choose, most)
    shapes = {"up": (inter, hidden), "down": (hidden, inter)}
    return hidden, inter, shapes | ({"gate": (inter, hidden)} if choose.random() < 0.6 else {})


@fuzz(rounds=60)
def test_packing_sees_values_not_their_place(seed: int) -> None:
    """Any strides and any float type: the same bytes as from fp32 end to end, and no value far off.

    A row's root mean square error is at most half a code of its largest value, also where the scales of int4
    and mxfp4 cut the largest, which they do only for a smaller error.
    """
    worst = {"fp32": 0.0, "bf16": 2**-8, "int8": 1 / 254, "fp8": 2**-4, "int4": 1 / 14, "mxfp4": 1 / 4}
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    hidden, inter, shapes = _shapes(choose, 500)
    name = choose.choice(list(FORMATS))
    spec = LayerSpec(1, hidden, inter, gated="gate" in shapes, **FORMATS[name])
    dtype = DTYPES[choose.choice(list(DTYPES))]
    parts = {part: torch.randn(shape, generator=generator).to(dtype) for part, shape in shapes.items()}
    strided = {part: source_of(_any_strides(choose, tensor)) for part, tensor in parts.items()}
    layer = _layer(spec, strided)
    plain = _layer(spec, {part: source_of(tensor.float()) for part, tensor in parts.items()})
    what = f"{name}, {dtype}, {shapes}"
    assert layer.memory == plain.memory, what
    for part, values in decode(layer, 0).items():
        expected = parts[part].double()
        largest = expected.abs().amax(1)
        # A row of fp8 may be subnormal in its block.
        bound = largest * worst[spec.weights] + largest.max() * 1e-5
        assert bool(((values - expected).square().mean(1).sqrt() <= bound).all()), f"{what}, {part}"


def _quantised(
    name: str, shape: tuple[int, int], generator: torch.Generator
) -> tuple[StridedView, torch.Tensor]:
    """A source in fp8 or mxfp4, and its values in float64."""
    rows, cols = shape
    if name == "fp8":
        codes = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
        codes[codes % 128 == 127] = 0  # NaN
        scale = torch.randn(-(-rows // 128), -(-cols // 128), generator=generator)
        spread = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :cols]
        tensor = codes.view(torch.float8_e4m3fn)
        return source_of(tensor, scale, (128, 128)), tensor.double() * spread.double()
    codes = torch.randint(0, 256, (rows, -(-cols // 2)), generator=generator).to(torch.uint8)
    exponents = torch.randint(100, 140, (rows, -(-cols // 32)), generator=generator).to(torch.uint8)
    nibbles = torch.stack([codes & 15, codes >> 4], -1).flatten(1)[:, :cols].long()
    magnitude = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)[nibbles % 8]
    spread = torch.exp2(exponents.double() - 127).repeat_interleave(32, 1)[:, :cols]
    source = replace(source_of(codes, exponents, (1, 32)), shape=(rows, cols))
    return source, torch.where(nibbles < 8, magnitude, -magnitude) * spread


@fuzz(rounds=60)
def test_codes_and_scales_are_kept(seed: int) -> None:
    """fp8 and mxfp4: their own format holds exactly what they stand for, fp32 all that it can."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    hidden, inter, shapes = _shapes(choose, 500)
    name = choose.choice(("fp8", "mxfp4"))
    parts = {part: _quantised(name, shape, generator) for part, shape in shapes.items()}
    sources = {part: source for part, (source, _) in parts.items()}
    for weights in (name, "fp32"):
        layer = _layer(LayerSpec(1, hidden, inter, weights, gated="gate" in shapes), sources)
        for part, result in decode(layer, 0).items():
            expected = parts[part][1] if weights == name else parts[part][1].float().double()
            what = f"{name} as {weights}, {part}, {shapes}"
            assert torch.equal(result, expected), what
