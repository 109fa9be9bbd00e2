"""Every system by name, and where its file is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from trimoe.cost import CostModel
from trimoe.errors import InputError, nearest
from trimoe.policies.base.policy import Policy

__all__ = ["make_policy", "policy_names", "policy_type"]

_TABLE = {
    "trimoe": "TriMoE",
    "coxmoe": "CoxMoE",
    "hybrimoe": "HybriMoE",
    "flexgen": "FlexGen",
    "moe-lightning": "MoELightning",
    "fiddler": "Fiddler",
    "ktransformers": "KTransformers",
    "moe-gen": "MoEGen",
    "moe-infinity": "MoEInfinity",
    "monde": "MoNDE",
    "hermes": "Hermes",
    "edge-ndp": "EdgeNdp",
    "n-cpu-moe": "NCpuMoe",
}


def policy_names() -> tuple[str, ...]:
    """All systems."""
    return tuple(_TABLE)


def policy_type(name: str) -> type[Policy]:
    """The class of a system; InputError for an unknown one."""
    if name not in _TABLE:
        raise InputError(
            expected=f"a system out of {', '.join(_TABLE)}", got=name, hint=nearest(name, _TABLE)
        )
    module = importlib.import_module(f"trimoe.policies.{name.replace('-', '_')}")
    found: type[Policy] = getattr(module, _TABLE[name])
    return found


def make_policy(name: str, cost: CostModel, settings: Mapping[str, str] | None = None) -> Policy:
    """A system's policy for a model on a machine; errors as for `Policy`."""
    return policy_type(name)(cost, settings)
