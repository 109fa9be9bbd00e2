"""The two ways to store a layer's experts, single matrices or stacks of all: checks, and views of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trimoe.errors import InputError
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.expert_views import (
    ExpertSource,
    split_bias,
    split_gate_up,
    whole_matrix,
    whole_vector,
)

__all__ = ["ExpertStorage", "Key", "per_expert_storage", "stacked_storage"]

Key = tuple[str, bool]  # role ("gate", "up", "down", "gate_up") and whether it is the bias
_GATE, _UP, _DOWN, _GATE_UP = ("gate", False), ("up", False), ("down", False), ("gate_up", False)
_ANOTHER_FILE = "downloading the checkpoint again, or a checkpoint saved by transformers"


@dataclass(frozen=True)
class ExpertStorage:
    """A checked layer: its shape, and how to view one expert.

    Attributes:
        experts: E.
        hidden: H.
        inter: I.
        dtype: of every matrix.
        gated: whether the experts have gates.
        has_bias: whether they have any bias.
        source: expert index to views.
    """

    experts: int
    hidden: int
    inter: int
    dtype: str
    gated: bool
    has_bias: bool
    source: Callable[[int], ExpertSource]


def per_expert_storage(
    checkpoint: Checkpoint, prefix: str, names: Mapping[int, Mapping[Key, str]], experts: int
) -> ExpertStorage:
    """A layer with one tensor per matrix and expert; `names[e][key]` are their names.

    Raises:
        InputError: an expert or a tensor is missing, or two experts differ in shape or dtype.
    """
    model = _complete_names(prefix, names, experts)
    hidden, inter = _matrix_shape(checkpoint, model[_DOWN])
    shapes = {_GATE: (inter, hidden), _UP: (inter, hidden), _DOWN: (hidden, inter)}
    shapes_of_bias = {("gate", True): (inter,), ("up", True): (inter,), ("down", True): (hidden,)}
    dtype = checkpoint.entry(model[_DOWN]).dtype
    for expert in range(experts):
        for key, name in names[expert].items():
            _check_shape(checkpoint, name, {**shapes, **shapes_of_bias}[key])
            if not key[1]:
                _check_dtype(checkpoint, name, dtype)

    def source(expert: int) -> ExpertSource:
        views = {key: checkpoint.tensor(name) for key, name in names[expert].items()}
        biases = {key[0]: whole_vector(view) for key, view in views.items() if key[1]}
        gate = whole_matrix(views[_GATE]) if _GATE in views else None
        up, down = whole_matrix(views[_UP]), whole_matrix(views[_DOWN])
        return ExpertSource(gate, up, down, biases.get("gate"), biases.get("up"), biases.get("down"))

    has_bias = any(bias for _, bias in model)
    return ExpertStorage(experts, hidden, inter, dtype, _GATE in model, has_bias, source)


def stacked_storage(
    checkpoint: Checkpoint, prefix: str, names: Mapping[Key, str], interleaved: bool
) -> ExpertStorage:
    """A layer with stacks of all experts; `names[key]` are their names.

    Args:
        checkpoint: where the tensors are.
        prefix: path of the experts module.
        names: the stacks' names.
        interleaved: whether gate_up holds gate, up, gate, up, ... instead of all gates first.

    Raises:
        InputError: a stack is missing, or the shapes or dtypes do not fit each other.
    """
    gated = _GATE_UP in names
    up_key = _GATE_UP if gated else _UP
    for key, leaf in ((up_key, "gate_up_proj"), (_DOWN, "down_proj")):
        if key not in names:
            raise _missing(f"{prefix}.{leaf}")
    if extra := set(names) - {up_key, _DOWN, (up_key[0], True), ("down", True)}:
        got = f"both {names[up_key]} and {names[extra.pop()]}"
        raise InputError(expected=f"either gate_up_proj or up_proj in {prefix}", got=got, hint=_ANOTHER_FILE)
    outputs = 2 if gated else 1
    experts, first, second = _stack_shape(checkpoint, names[up_key])
    # A fused stack tells its order: one of its dimensions is 2I, and the other is down's H.
    _, down_first, down_second = _stack_shape(checkpoint, names[_DOWN])
    transposed = gated and (first, second) == (down_second, 2 * down_first)
    hidden, rows = (first, second) if transposed else (second, first)
    inter = rows // outputs
    _check_shape(checkpoint, names[up_key], (experts, *_order(outputs * inter, hidden, transposed)))
    _check_shape(checkpoint, names[_DOWN], (experts, *_order(hidden, inter, transposed)))
    dtype = checkpoint.entry(names[_DOWN]).dtype
    _check_dtype(checkpoint, names[up_key], dtype)
    up_bias, down_bias = names.get((up_key[0], True)), names.get(("down", True))
    if up_bias or down_bias:  # both have one, or none has
        for bias_name, name, size in (
            (up_bias, names[up_key], outputs * inter),
            (down_bias, names[_DOWN], hidden),
        ):
            if bias_name is None:
                raise _missing(f"{name}_bias")
            _check_shape(checkpoint, bias_name, (experts, size))

    def source(expert: int) -> ExpertSource:
        up_view = checkpoint.tensor(names[up_key])[expert]
        down = whole_matrix(checkpoint.tensor(names[_DOWN])[expert], transposed)
        up_bias_view = checkpoint.tensor(up_bias)[expert] if up_bias else None
        down_bias_vector = whole_vector(checkpoint.tensor(down_bias)[expert]) if down_bias else None
        if not gated:
            up_bias_vector = whole_vector(up_bias_view) if up_bias_view else None
            return ExpertSource(None, whole_matrix(up_view), down, None, up_bias_vector, down_bias_vector)
        gate, up = split_gate_up(up_view, transposed, interleaved)
        gate_bias, up_bias_vector = split_bias(up_bias_view, interleaved) if up_bias_view else (None, None)
        return ExpertSource(gate, up, down, gate_bias, up_bias_vector, down_bias_vector)

    return ExpertStorage(experts, hidden, inter, dtype, gated, bool(up_bias), source)


def _complete_names(prefix: str, names: Mapping[int, Mapping[Key, str]], experts: int) -> dict[Key, str]:
    """One name for every key that any expert has, after checking that every expert has them all."""
    leaves = {
        key: (expert, name.removeprefix(f"{prefix}.{expert}."))
        for expert, of_expert in names.items()
        for key, name in of_expert.items()
    }
    mixtral_style = any(leaf.startswith("w") for _, leaf in leaves.values())
    up, down = ("w3", "w2") if mixtral_style else ("up_proj", "down_proj")
    for key, leaf in ((_UP, up), (_DOWN, down)):
        if key not in leaves:
            raise _missing(f"{prefix}.0.{leaf}.weight")
    if any(bias for _, bias in leaves):  # all matrices have one, or none has
        for (role, bias), (expert, leaf) in list(leaves.items()):
            if not bias:
                leaves.setdefault((role, True), (expert, leaf.removesuffix("weight") + "bias"))
    for expert in range(experts):
        for key, (_, leaf) in leaves.items():
            if key not in names.get(expert, {}):
                raise _missing(f"{prefix}.{expert}.{leaf}")
    return {key: f"{prefix}.{expert}.{leaf}" for key, (expert, leaf) in leaves.items()}


def _order(rows: int, cols: int, transposed: bool) -> tuple[int, int]:
    return (cols, rows) if transposed else (rows, cols)


def _matrix_shape(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    shape = checkpoint.entry(name).shape
    if len(shape) != 2 or 0 in shape:
        raise InputError(expected=f"a matrix in {name}", got=f"shape {shape}", hint=_ANOTHER_FILE)
    return shape[0], shape[1]


def _stack_shape(checkpoint: Checkpoint, name: str) -> tuple[int, int, int]:
    shape = checkpoint.entry(name).shape
    if len(shape) != 3 or 0 in shape:
        raise InputError(expected=f"a stack of matrices in {name}", got=f"shape {shape}", hint=_ANOTHER_FILE)
    return shape[0], shape[1], shape[2]


def _check_shape(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    got = checkpoint.entry(name).shape
    if got != shape:
        raise InputError(
            expected=f"shape {shape} of {name}, to fit the layer's other experts",
            got=f"shape {got}",
            hint=_ANOTHER_FILE,
        )


def _check_dtype(checkpoint: Checkpoint, name: str, dtype: str) -> None:
    got = checkpoint.entry(name).dtype
    if got != dtype:
        raise InputError(
            expected=f"dtype {dtype} of {name}, like the layer's other experts", got=got, hint=_ANOTHER_FILE
        )


def _missing(name: str) -> InputError:
    return InputError(
        expected=f"an expert tensor {name}",
        got="a checkpoint without it",
        hint="downloading the checkpoint again (a shard may be missing or belong to another revision)",
    )
