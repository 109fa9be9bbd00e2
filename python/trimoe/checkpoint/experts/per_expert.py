"""A layer's experts stored as single matrices: checks, and views of one expert."""

from __future__ import annotations

from collections.abc import Mapping

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.checks import ANOTHER_FILE, check_dtype, check_shape, missing
from trimoe.checkpoint.experts.layer_storage import Key, LayerStorage
from trimoe.checkpoint.experts.scales import BLOCKS, check_scales, scale_name, scaled
from trimoe.errors import InputError
from trimoe.layer.source import ExpertSource, StridedView

__all__ = ["per_expert_storage"]

_GATE, _UP, _DOWN = ("gate", "weight"), ("up", "weight"), ("down", "weight")


def per_expert_storage(
    checkpoint: Checkpoint, prefix: str, names: Mapping[int, Mapping[Key, str]], experts: int
) -> LayerStorage:
    """A layer with one tensor per matrix and expert; `names[e][key]` are their names.

    Raises:
        InputError: an expert or a tensor is missing, or two experts differ in shape or dtype.
    """
    model = _complete_names(checkpoint, prefix, names, experts)
    hidden, inter = _matrix_shape(checkpoint, model[_DOWN])
    shapes = {_GATE: (inter, hidden), _UP: (inter, hidden), _DOWN: (hidden, inter)}
    shapes_of_bias = {("gate", "bias"): (inter,), ("up", "bias"): (inter,), ("down", "bias"): (hidden,)}
    dtype = checkpoint.entry(model[_DOWN]).dtype
    scales: dict[str, str | None] = {}
    for expert in range(experts):
        for key, name in names[expert].items():
            role, part = key
            if part != "scale":
                check_shape(name, checkpoint.entry(name).shape, {**shapes, **shapes_of_bias}[key])
            if part == "weight":
                check_dtype(name, checkpoint.entry(name).dtype, dtype)
                scales[name] = names[expert].get((role, "scale"))
    check_scales(checkpoint, scales)

    def source(expert: int) -> ExpertSource:
        views = {key: checkpoint.tensor(name) for key, name in names[expert].items()}

        def matrix(role: str) -> StridedView:
            return scaled(views[role, "weight"], views.get((role, "scale")))

        gate = matrix("gate") if _GATE in views else None
        biases = (views.get((role, "bias")) for role in ("gate", "up", "down"))
        return ExpertSource(gate, matrix("up"), matrix("down"), *biases)

    has_bias = any(part == "bias" for _, part in model)
    return LayerStorage(experts, hidden, inter, dtype, _GATE in model, has_bias, source)


def _complete_names(
    checkpoint: Checkpoint, prefix: str, names: Mapping[int, Mapping[Key, str]], experts: int
) -> dict[Key, str]:
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
            raise missing(f"{prefix}.0.{leaf}.weight")
    expert, leaf = leaves[_DOWN]
    has_scales = checkpoint.entry(f"{prefix}.{expert}.{leaf}").dtype in BLOCKS
    has_biases = any(part == "bias" for _, part in leaves)
    for (role, part), (expert, leaf) in list(leaves.items()):
        if part == "weight" and has_biases:  # all matrices have one, or none has
            leaves.setdefault((role, "bias"), (expert, leaf.removesuffix("weight") + "bias"))
        if part == "weight" and has_scales:
            leaves.setdefault((role, "scale"), (expert, scale_name(leaf)))
    for expert in range(experts):
        for key, (_, leaf) in leaves.items():
            if key not in names.get(expert, {}):
                raise missing(f"{prefix}.{expert}.{leaf}")
    return {key: f"{prefix}.{expert}.{leaf}" for key, (expert, leaf) in leaves.items()}


def _matrix_shape(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    shape = checkpoint.entry(name).shape
    if len(shape) != 2 or 0 in shape:
        raise InputError(expected=f"a matrix in {name}", got=f"shape {shape}", hint=ANOTHER_FILE)
    return shape[0], shape[1]
