"""Who decides where experts run: one file per system, all with one interface. Needs no torch."""

from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.options import parse_settings
from trimoe.policies.base.policy import Policy, deployed
from trimoe.policies.base.step import Foresight, LayerDone, LayerStep, NoForesight
from trimoe.policies.registry import make_policy, policy_names, policy_type

__all__ = [
    "Deployment",
    "Foresight",
    "LayerDone",
    "LayerStep",
    "Loads",
    "NoForesight",
    "Policy",
    "Workload",
    "deployed",
    "make_policy",
    "parse_settings",
    "policy_names",
    "policy_type",
]
