"""Experts stored as stacks of all of them: views of one expert, under every name and in every order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.expert_files import CONFIG, INTER, PREFIX, Array, E, H, open_layer, read, stacked
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.reader import file_ranges
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.errors import InputError
from trimoe.layer.source import ExpertSource

Write = Callable[..., Path]


def stack_bits(checkpoint: Checkpoint, name: str) -> Array:
    shape = checkpoint.entry(f"{PREFIX}.{name}").shape
    return np.frombuffer(checkpoint.read(f"{PREFIX}.{name}"), "u4").reshape(shape)


@pytest.mark.parametrize("inter", [INTER, H, H // 2, 2 * H])
@pytest.mark.parametrize("transposed", [False, True])
def test_concatenated_stacks_are_taken_apart(write_checkpoint: Write, transposed: bool, inter: int) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": stacked(transposed, inter=inter)})
    checkpoint, layer = open_layer(folder)
    gate_up, down = stack_bits(checkpoint, "gate_up_proj"), stack_bits(checkpoint, "down_proj")
    if transposed:
        gate_up, down = gate_up.swapaxes(1, 2), down.swapaxes(1, 2)
    assert (layer.experts, layer.hidden, layer.inter, layer.gated) == (E, H, inter, True)
    for e in range(E):
        source = layer.expert(e)
        assert np.array_equal(read(source.gate), gate_up[e, :inter])
        assert np.array_equal(read(source.up), gate_up[e, inter:])
        assert np.array_equal(read(source.down), down[e])


def test_stacks_without_gates_have_none(write_checkpoint: Write) -> None:
    bias = {f"{PREFIX}.up_proj_bias": ("F32", (E, INTER)), f"{PREFIX}.down_proj_bias": ("F32", (E, H))}
    folder = write_checkpoint(CONFIG, {"model.safetensors": stacked(gated=False, **bias)})
    checkpoint, layer = open_layer(folder)
    assert (layer.gated, layer.has_bias) == (False, True)
    source = layer.expert(2)
    assert source.gate is None
    assert source.gate_bias is None
    assert np.array_equal(read(source.up), stack_bits(checkpoint, "up_proj")[2])
    assert np.array_equal(read(source.up_bias), stack_bits(checkpoint, "up_proj_bias")[2])
    assert np.array_equal(read(source.down_bias), stack_bits(checkpoint, "down_proj_bias")[2])


def test_an_expert_owns_its_part_of_a_stack_only(write_checkpoint: Write) -> None:
    checkpoint, layer = open_layer(write_checkpoint(CONFIG, {"model.safetensors": stacked()}))
    source: ExpertSource = layer.expert(1)
    assert (source.up.name, source.down.name) == (f"{PREFIX}.gate_up_proj[1]", f"{PREFIX}.down_proj[1]")
    entries = [checkpoint.entry(f"{PREFIX}.{name}") for name in ("gate_up_proj", "down_proj")]
    parts = [(entry.begin + entry.nbytes // E, entry.begin + 2 * entry.nbytes // E) for entry in entries]
    assert [(part.begin, part.end) for part in file_ranges(source)] == sorted(parts)
    for index in (-1, E):
        with pytest.raises(IndexError):
            layer.expert(index)


GRANITE = ("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight")

ARIA = ("mlp.experts.fc1.weight", "mlp.experts.fc2.weight")


@pytest.mark.parametrize("names", [GRANITE, ARIA])
@pytest.mark.parametrize("shapes", [((E, 2 * INTER, H), (E, H, INTER)), ((E, H, 2 * INTER), (E, INTER, H))])
def test_stacks_are_found_under_other_names(
    write_checkpoint: Write, names: tuple[str, str], shapes: tuple[tuple[int, ...], ...]
) -> None:
    """Byte for byte what is read under transformers' own names."""
    read_twice = []
    for up, down in (names, ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")):
        tensors = {
            f"model.layers.0.{name}": ("BF16", shape) for name, shape in zip((up, down), shapes, strict=True)
        }
        with Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": tensors})) as checkpoint:
            layer = find_moe_layers(checkpoint)[0]
            assert (layer.experts, layer.hidden, layer.inter, layer.gated) == (E, H, INTER, True)
            sources = [layer.expert(e) for e in range(E)]
            read_twice.append([read(part) for one in sources for part in (one.gate, one.up, one.down)])
    for first, second in zip(*read_twice, strict=True):
        assert first is not None and second is not None and np.array_equal(first, second)


@pytest.mark.parametrize("names", [GRANITE, ARIA])
@pytest.mark.parametrize("lost", [0, 1])
def test_half_of_the_stacks_under_other_names_is_an_error(
    write_checkpoint: Write, names: tuple[str, str], lost: int
) -> None:
    shape = [(E, H, INTER), (E, 2 * INTER, H)][lost]
    tensors = {f"model.layers.0.{names[1 - lost]}": ("BF16", shape)}
    folder = write_checkpoint(CONFIG, {"model.safetensors": tensors})
    with Checkpoint(folder) as checkpoint, pytest.raises(InputError, match=names[lost]):
        find_moe_layers(checkpoint)
