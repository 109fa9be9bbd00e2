"""The names that checkpoints give to the tensors of routed experts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PARTNERS", "ExpertTensorName", "parse_expert_name"]

# One matrix per expert: <prefix>.<expert>.<name>.weight, .bias and, in fp8, the scales of the weight; gate
# and up are [I, H], down is [H, I].
_PER_EXPERT: Mapping[str, str] = {
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "w1": "gate",  # Mixtral
    "w3": "up",
    "w2": "down",
}
_PER_EXPERT_PARTS: Mapping[str, str] = {"weight": "weight", "bias": "bias", "weight_scale_inv": "scale"}
# One stack for all experts: <prefix>.<name><suffix>; see expert_tensors for the orders of dimensions.
_STACKED: Mapping[str, str] = {"gate_up_proj": "gate_up", "up_proj": "up", "down_proj": "down"}
_STACKED_PARTS: Mapping[str, str] = {
    "": "weight", "_bias": "bias", "_scale_inv": "scale",
    "_blocks": "weight", "_scales": "scale",  # mxfp4
}  # fmt: skip
# The same stacks as the weights of linear layers: Aria's, and Granite's, which has no module for experts.
_STACKED_LINEAR: Mapping[tuple[str, str], str] = {
    ("experts", "fc1.weight"): "gate_up",
    ("experts", "fc2.weight"): "down",
    ("block_sparse_moe", "input_linear.weight"): "gate_up",
    ("block_sparse_moe", "output_linear.weight"): "down",
}
_PAIRS = {
    "gate_up_proj": "down_proj",
    "fc1.weight": "fc2.weight",
    "input_linear.weight": "output_linear.weight",
}
# Of each fused stack the name of the other one of its layer.
PARTNERS: Mapping[str, str] = {**_PAIRS, **{down: up for up, down in _PAIRS.items()}}
_NO_WEIGHTS = frozenset({"e_score_correction_bias"})  # the router's, stored among the experts by some writers

_MAX_NAME = 300
# "shared_experts" is another module: it runs for every token and is no routed expert.
_PATTERN = re.compile(
    r"(?P<prefix>(?:.*\.)?(?:layers|blocks)\.(?P<layer>[0-9]{1,6})\.(?:\w+\.)*"
    r"(?P<module>experts|block_sparse_moe(?=\.(?:in|out)put_linear\.)))"
    r"\.(?:(?P<expert>[0-9]{1,6})\.)?(?P<leaf>.+)"
)


@dataclass(frozen=True)
class ExpertTensorName:
    """A tensor name taken apart.

    Attributes:
        prefix: path of the experts module, such as "model.layers.3.mlp.experts".
        layer: index of the layer.
        expert: index of the expert; None for a stack of all experts.
        role: "gate", "up", "down", "gate_up" (both in one), or "" where the rest of the name is unknown.
        part: "weight", "bias" or "scale" (of a weight's blocks); "" where the role is.
    """

    prefix: str
    layer: int
    expert: int | None
    role: str
    part: str


def parse_expert_name(name: str) -> ExpertTensorName | None:
    """Take the name of a routed expert's tensor apart; None for any other tensor.

    Multi-token-prediction stacks (`mtp.*`) are no part of the model that generates: other tensors.
    """
    if not (".experts." in name or "_linear." in name) or len(name) > _MAX_NAME:
        return None  # most names; and none that could keep a regex busy
    match = _PATTERN.fullmatch(name)
    if match is None or match["leaf"] in _NO_WEIGHTS or "mtp" in name.split("."):
        return None
    expert = None if match["expert"] is None else int(match["expert"])
    role, part = _parse_leaf(match["module"], match["leaf"], stacked=expert is None)
    return ExpertTensorName(match["prefix"], int(match["layer"]), expert, role, part)


def _parse_leaf(module: str, leaf: str, stacked: bool) -> tuple[str, str]:
    if stacked and (module, leaf) in _STACKED_LINEAR:
        return _STACKED_LINEAR[module, leaf], "weight"
    if stacked:
        base = next((name for name in _STACKED if leaf.startswith(name)), "")
        role, part = _STACKED.get(base, ""), _STACKED_PARTS.get(leaf.removeprefix(base), "")
    else:
        base, _, kind = leaf.partition(".")
        role, part = _PER_EXPERT.get(base, ""), _PER_EXPERT_PARTS.get(kind, "")
    return (role, part) if role and part else ("", "")
