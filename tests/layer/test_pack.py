"""Packing: every source layout, dtype and alignment gives the same packed bytes."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref

import pytest
import torch

from support.cases import DTYPES, FORMATS, Case, make_problem, pack
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import source_of

CASE = Case("pack", hidden=45, inter=37, experts=3, bias=True)


def _bytes(layer: ExpertLayer) -> bytes:
    return bytes(layer.memory)


def _sources(parts: dict[str, torch.Tensor], expert: int) -> dict[str, torch.Tensor]:
    return {name: tensor[expert] for name, tensor in parts.items()}


def _transposed(parts: dict[str, torch.Tensor], expert: int) -> dict[str, torch.Tensor]:
    return {name: t.T.contiguous().T if t.dim() == 2 else t for name, t in _sources(parts, expert).items()}


def _interleaved(parts: dict[str, torch.Tensor], expert: int) -> dict[str, torch.Tensor]:
    part = _sources(parts, expert)
    for suffix in ("", "_bias"):
        joined = torch.stack([part["gate" + suffix], part["up" + suffix]], dim=1).flatten(0, 1)
        part |= {"gate" + suffix: joined[0::2], "up" + suffix: joined[1::2]}
    return part


def _concatenated(parts: dict[str, torch.Tensor], expert: int) -> dict[str, torch.Tensor]:
    part = _sources(parts, expert)
    part["gate"], part["up"] = torch.cat([part["gate"], part["up"]]).split(CASE.inter)
    return part


def _unaligned(parts: dict[str, torch.Tensor], expert: int) -> dict[str, torch.Tensor]:
    """At odd addresses: safetensors promises no alignment at all."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        data = tensor.contiguous().view(-1).view(torch.uint8)
        moved = bytearray(1 + data.numel())
        moved[1:] = bytes(data.tolist())
        return torch.frombuffer(moved, dtype=tensor.dtype, offset=1).view(tensor.shape)

    return {name: move(tensor) for name, tensor in _sources(parts, expert).items()}


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith("a16")])
@pytest.mark.parametrize("layout", [_transposed, _interleaved, _concatenated, _unaligned])
def test_layouts_pack_alike(name: str, layout: object) -> None:
    parts = make_problem(CASE, name).parts
    plain, other = pack(CASE.spec(name), parts), ExpertLayer(CASE.spec(name))
    for expert in range(CASE.experts):
        part = {name: source_of(tensor) for name, tensor in layout(parts, expert).items()}  # type: ignore[operator]
        other.pack_expert(expert, **part)
    assert _bytes(plain) == _bytes(other)
    assert any(_bytes(plain))


@pytest.mark.parametrize(
    ("source", "weights"), [("fp16", "fp32"), ("fp32", "bf16"), ("bf16", "fp32"), ("fp16", "bf16")]
)
def test_conversion_rounds_as_torch_does(source: str, weights: str) -> None:
    """Subnormals, infinities and ties included."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    bits = torch.randint(0, 2**16, (4 * 45 * 37,), generator=torch.Generator().manual_seed(3)).to(torch.int16)
    values = bits.view(torch.float16).float().nan_to_num(nan=1.5) * (1 + 2**-9)
    parts = {
        "gate": values[: 37 * 45].view(1, 37, 45),
        "up": values[37 * 45 : 2 * 37 * 45].view(1, 37, 45),
        "down": values[2 * 37 * 45 : 3 * 37 * 45].view(1, 45, 37),
    }
    stored = {name: tensor.to(dtypes[source]) for name, tensor in parts.items()}
    converted = {name: tensor.to(dtypes[weights]) for name, tensor in stored.items()}
    spec = LayerSpec(1, 45, 37, weights)
    assert _bytes(pack(spec, stored)) == _bytes(pack(spec, converted))


@pytest.mark.parametrize("dtype", DTYPES)
def test_biases_are_kept_exactly(dtype: str) -> None:
    parts = make_problem(CASE).parts
    biases = {name: tensor.to(DTYPES[dtype]) for name, tensor in parts.items() if name.endswith("_bias")}
    widened = {name: tensor.float() for name, tensor in biases.items()}
    spec = CASE.spec("fp32")
    assert len(biases) == 3 and _bytes(pack(spec, parts | biases)) == _bytes(pack(spec, parts | widened))


@pytest.mark.parametrize(
    ("source", "weights"), [("fp16", "fp32"), ("fp32", "bf16"), ("bf16", "fp32"), ("fp16", "bf16")]
)
def test_nan_stays_nan(source: str, weights: str) -> None:
    """With any payload: rounding 0x7fffffff up to bf16 would give -0, cutting 0x7f800001 infinity."""
    bits = [0x7F800001, 0x7FC00000, 0x7FFFFFFF, -1] if source == "fp32" else [0x7FC1, 0x7FFF, -1, 0x7F81]
    nan = torch.tensor(bits, dtype=torch.int32 if source == "fp32" else torch.int16).view(DTYPES[source])
    layer = pack(LayerSpec(1, 4, 4, weights), {name: nan.repeat(1, 4, 1) for name in ("gate", "up", "down")})
    packed = torch.frombuffer(bytearray(layer.memory), dtype=DTYPES[weights])
    assert nan.isnan().all() and packed.isnan().sum() == 3 * 16


def test_a_mapped_layer_computes_what_the_packed_one_does() -> None:
    problem = make_problem(CASE, "bf16")
    size = problem.layer.spec.layer_bytes
    raw = torch.empty(size + 64, dtype=torch.uint8)
    offset = -raw.data_ptr() % 64
    raw[offset : offset + size] = torch.frombuffer(bytearray(problem.layer.memory), dtype=torch.uint8)
    mapped = ExpertLayer(problem.layer.spec, address=raw.data_ptr() + offset, owner=raw)
    from trimoe.layer.op import moe_forward

    results = [
        moe_forward(problem.hidden, problem.ids, problem.weights, layer.handle)
        for layer in (problem.layer, mapped)
    ]
    assert torch.equal(*results)
    with pytest.raises(InputError, match="a layer that owns its memory"):
        mapped.pack_expert(0, *[source_of(problem.parts[n][0]) for n in ("gate", "up", "down")])
    with pytest.raises(InputError, match="aligned to 64 bytes"):
        ExpertLayer(problem.layer.spec, address=raw.data_ptr() + offset + 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"experts": 0}, "1 to 2^20 experts"), ({"hidden": -1}, "hidden size of 1 to 2^20"),
     ({"inter": 2**21}, "intermediate size of 1 to 2^20"), ({"weights": "int3"}, "got int3; try int8"),
     ({"weights": "fp16"}, "weights out of fp32, bf16, int8, int4, fp8, mxfp4; got fp16"),
     ({"activation": "tanh"}, "out of silu, "), ({"activation": "swiglu_oai", "gated": False}, "a gate"),
     ({"weights": "int4", "group": 48}, "groups of 32, 64 or 128; got 48"),
     ({"weights": "int4", "group": -32}, "groups of 32, 64 or 128; got -32"),
     ({"weights": "mxfp4", "group": 64}, "a group size for int4 only; got 64"),
     ({"weights": "bf16", "group": 128}, "a group size for int4 only; got 128"),
     ({"weights": "int8", "activations": "bf16"}, "a choice of activations for int4 only"),
     ({"weights": "fp8", "activations": "int8"}, "a choice of activations for int4 only"),
     ({"weights": "int4", "activations": "fp16"}, "activations out of auto, int8, bf16; got fp16"),
     ({"weights": "int8", "hidden": 2**16 + 1}, "at most 2^16 with int8 activations; got 65537"),
     ({"weights": "int4", "inter": 2**17}, "at most 2^16 with int8 activations; got 131072")],
)  # fmt: skip
def test_bad_shapes_are_input_errors(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ExpertLayer(LayerSpec(**{"experts": 2, "hidden": 16, "inter": 16, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"weights": "int4", "group": group, "activations": how} for group in (0, 32, 64, 128)
     for how in ("auto", "int8", "bf16")]
    + [{"weights": "int4", "activations": "bf16", "hidden": 2**17},
       {"weights": "int8", "activations": "int8"},
       {"weights": "fp8", "group": 128, "activations": "bf16"}, {"weights": "mxfp4", "group": 32}],
)  # fmt: skip
def test_good_choices_are_taken(change: dict[str, object]) -> None:
    assert LayerSpec(**{"experts": 1, "hidden": 64, "inter": 16, **change}).layer_bytes > 0  # type: ignore[arg-type]


def test_missing_parts_and_bad_indices_are_errors() -> None:
    layer = ExpertLayer(LayerSpec(2, 8, 8))
    matrix = source_of(torch.zeros(8, 8))
    with pytest.raises(InputError, match=r"gate of shape \[I, H\]; got nothing"):
        layer.pack_expert(0, None, matrix, matrix)
    with pytest.raises(InputError, match="expert index"):
        layer.pack_expert(2, matrix, matrix, matrix)
    with pytest.raises(InputError, match="fp32, bf16 or fp16"):
        source_of(torch.zeros(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["gate", "up", "down", "gate_bias", "up_bias", "down_bias"])
def test_every_part_is_checked(name: str) -> None:
    """Missing, or a row short."""
    parts = _sources(make_problem(CASE).parts, 0)
    layer = ExpertLayer(CASE.spec("fp32"))
    for bad in (None, source_of(parts[name][:-1])):
        sources = {part: source_of(tensor) for part, tensor in parts.items()} | {name: bad}
        with pytest.raises(InputError, match=f"{name.replace('_', ' ')} of shape"):
            layer.pack_expert(0, **sources)  # type: ignore[arg-type]


def test_a_part_of_another_shape_is_an_error() -> None:
    """Else packing would read past the tensor."""
    layer, small, right = ExpertLayer(LayerSpec(1, 64, 64)), torch.zeros(8, 8), torch.zeros(64, 64)
    for parts in ((small, right, right), (right, small, right), (right, right, small)):
        with pytest.raises(InputError, match=r"got \[8, 8\]"):
            layer.pack_expert(0, *[source_of(part) for part in parts])


def test_memory_of_a_closed_layer_stays_readable() -> None:
    problem = make_problem(CASE, "bf16")
    before, memory = bytes(problem.layer.memory), problem.layer.memory
    problem.layer.close()
    del problem
    assert bytes(memory) == before and memory.readonly


def test_a_mapped_layer_keeps_its_owner_until_it_is_closed() -> None:
    class Owner:
        pass

    owner, raw = Owner(), torch.zeros(1 << 16, dtype=torch.uint8)
    alive = weakref.ref(owner)
    layer = ExpertLayer(LayerSpec(1, 16, 16), address=raw.data_ptr() + -raw.data_ptr() % 64, owner=owner)
    del owner
    assert alive() is not None
    memory = layer.memory
    layer.close()
    assert alive() is not None  # a view of it is still there
    del memory
    assert alive() is None


@pytest.mark.slow
def test_closing_a_mapped_layer_holds_up_no_other_thread() -> None:
    """What it let go of runs Python, with the GIL given up in between, while others ask for their layers."""
    code = """
import threading, time, torch
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec

class Owner:
    def __init__(self):
        self.memory = torch.zeros(1 << 16, dtype=torch.uint8)
    def __del__(self):
        closing.set()
        time.sleep(0.2)

closing, spec, owner = threading.Event(), LayerSpec(1, 16, 16), Owner()
other = ExpertLayer(spec)
address = owner.memory.data_ptr()
layer = ExpertLayer(spec, address=address + -address % 64, owner=owner)
del owner
thread = threading.Thread(target=lambda: (closing.wait(), other.stats()))
thread.start()
layer.close()
thread.join()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
