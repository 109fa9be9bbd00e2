"""One layer's packed experts as Python sees them: made from tensors, shown, copied."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from support.cases import FORMATS, Case, make_problem, pack
from support.subprocesses import run_python
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec

CASE = Case("stacks", hidden=48, inter=40, experts=5, bias=True)
PARTS = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias")


def _stacks(case: Case = CASE, name: str = "fp32") -> dict[str, Any]:
    return {part: None for part in PARTS} | make_problem(case, name).parts


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", [CASE, Case("plain"), Case("no_gate", gated=False, activation="relu2")])
def test_from_tensors_packs_what_one_by_one_does(case: Case, name: str) -> None:
    layer = ExpertLayer.from_tensors(
        **_stacks(case, name), activation=case.activation, threads=3, **FORMATS[name]
    )
    expected = pack(case.spec(name), make_problem(case, name).parts)
    assert layer.spec == case.spec(name) and bytes(layer.memory) == bytes(expected.memory)


def test_from_tensors_takes_any_view() -> None:
    """As checkpoints have them: transposed, gate and up in one tensor, interleaved; every usable thread."""
    stacks = _stacks()
    expected = bytes(ExpertLayer.from_tensors(**stacks, weights="int4").memory)
    joined = torch.stack([stacks["gate"], stacks["up"]], dim=2).flatten(1, 2)
    views = {"gate": joined[:, ::2], "up": joined[:, 1::2], "down": stacks["down"].mT.contiguous().mT}
    assert not any(view.is_contiguous() for view in views.values())
    assert bytes(ExpertLayer.from_tensors(**{**stacks, **views}, weights="int4").memory) == expected


def test_pack_expert_takes_tensors() -> None:
    stacks = _stacks()
    layer = ExpertLayer(CASE.spec("bf16"))
    for expert in range(CASE.experts):
        layer.pack_expert(expert, *(stacks[part][expert] for part in PARTS))
    assert bytes(layer.memory) == bytes(ExpertLayer.from_tensors(**stacks).memory)
    with pytest.raises(InputError, match=r"expected a torch tensor.*; got builtins.list"):
        layer.pack_expert(0, [[1.0]], stacks["up"][0], stacks["down"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": None}, r"stacked tensors; got NoneType"),
        ({"up": [[1.0]]}, r"stacked tensors; got list"),
        ({"up": torch.zeros(40, 48)}, r"up of shape \[E, I, H\]; got \[40, 48\]"),
        ({"gate": torch.zeros(5, 40, 47)}, r"gate of shape \[E, I, H\]; got \[5, 40, 47\]"),
        ({"down": None}, r"down of shape \[E, H, I\]; got nothing"),
        ({"down": torch.zeros(5, 40, 48)}, r"down of shape \[E, H, I\]; got \[5, 40, 48\]"),
        ({"up_bias": None}, r"up_bias of shape \[E, I\]; got nothing"),
        ({"down_bias": None}, r"no gate_bias beside the others; got \[5, 40\]"),
        ({"down_bias": torch.zeros(5, 47)}, r"down_bias of shape \[E, H\]; got \[5, 47\]"),
        ({"gate": None}, r"no gate_bias beside the others; got \[5, 40\]"),
        ({"up": torch.zeros(5, 0, 48)}, r"up of shape \[E, I, H\]; got \[5, 0, 48\]"),
        ({"gate": torch.zeros(5, 40, 48, dtype=torch.int64)}, r"weights of fp32, .*; got int64 on cpu"),
        ({"gate": torch.zeros(5, 40, 48, device="meta")}, r"weights of fp32, .*; got float32 on meta"),
        ({"weights": "int3"}, r"weights out of fp32, .*; got int3"),
        ({"activation": "tanh"}, r"activation out of silu, .*; got tanh"),
        ({"weights": "int8", "group": 64}, "a group size for int4 only; got 64"),
        ({"weights": "int4", "up": torch.full((5, 40, 48), torch.nan)}, "got NaN or infinity in up"),
    ],
)  # fmt: skip
def test_bad_stacks_get_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExpertLayer.from_tensors(**{**_stacks(), **change})


def test_repr_says_what_it_is() -> None:
    layer = ExpertLayer.from_tensors(**_stacks(), weights="int4", group=32, activations="bf16")
    start = "ExpertLayer(5 experts, hidden 48, inner 40, int4 g32 (W4A16), silu, biases, "
    size = f"{layer.spec.layer_bytes / 1e6:.1f} MB"
    assert repr(layer) == f"{start}{size}, handle {layer.handle})"
    layer.close()
    assert repr(layer).endswith("MB, closed)")
    assert "relu2 without gate" in repr(ExpertLayer(LayerSpec(2, 16, 16, activation="relu2", gated=False)))


def test_a_copy_is_the_same_layer_and_a_pickle_an_error() -> None:
    layer = ExpertLayer(LayerSpec(2, 16, 16))
    assert copy.copy(layer) is layer and copy.deepcopy({"a": [layer]})["a"][0] is layer
    for save in (pickle.dumps, lambda one: torch.save(one, io.BytesIO())):
        with pytest.raises(InputError, match="got an ExpertLayer to pickle"):
            save(layer)


def test_no_torch_is_needed_to_import_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trimoe.layer.expert_layer import LayerSpec; print(LayerSpec)"
    )
    assert run_python(code) == "<class 'trimoe.layer.expert_layer.LayerSpec'>\n"
