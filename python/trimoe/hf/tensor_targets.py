"""Which parameter of a model transformers loads each tensor of a checkpoint into.

It renames tensors on the way: by a table for the model type, by the user's `key_mapping`, and by adding or
leaving out the part of the name that only some classes have.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trimoe.checkpoint.experts.names import parse_expert_name
from trimoe.errors import InputError

__all__ = ["Target", "check_expert_targets", "tensor_targets"]


class Target(NamedTuple):
    """Where a tensor goes: the parameter's name, and whether that is computed from it (fused, split, ...)."""

    parameter: str
    is_converted: bool


def tensor_targets(
    names: Iterable[str], conversions: Sequence[Any], prefix: str, parameters: Iterable[str]
) -> dict[str, Target]:
    """Tensor to target, whether the model has a parameter of that name or not.

    Args:
        names: of the checkpoint's tensors.
        conversions: what transformers is about to apply (`get_model_conversion_mapping`).
        prefix: the model's `base_model_prefix`.
        parameters: names of all parameters and buffers of the model, the experts' included.
    """
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    own = copy.deepcopy(conversions)  # some remember what they have seen
    renamings = [one for one in own if isinstance(one, WeightRenaming)]
    converters = [one for one in own if isinstance(one, WeightConverter)]
    known = dict.fromkeys(parameters, True)
    targets: dict[str, Target] = {}
    for name in sorted(names, key=dot_natural_key):  # transformers' order, for the same reason
        target, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if target not in known and name in known:
            target, pattern = rename_source_key(name, [], [], prefix, known)
        targets[name] = Target(target, pattern is not None)
    return targets


def check_expert_targets(targets: Mapping[str, Target], modules: Mapping[int, str]) -> None:
    """Checks that transformers would have put the experts' tensors where they are now.

    Args:
        targets: as from `tensor_targets`.
        modules: layer to path of its experts module, filled from the tensors whose names say that layer.

    Raises:
        InputError: naming the first tensor that it takes for something else.
    """
    for name, target in targets.items():
        parsed = parse_expert_name(name)
        module = None if parsed is None else modules.get(parsed.layer)
        if module is not None and not target.parameter.startswith(f"{module}."):
            raise InputError(
                expected=f"the tensor {name} to be of {module}, as its name says",
                got=f"a model that takes it for {target.parameter}",
                hint="leaving key_mapping out; tensors that are named as in transformers",
            )
