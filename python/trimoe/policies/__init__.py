"""Who decides where experts run: one file per system, all with one interface. Needs no torch."""

from trimoe.policies.deployment import Deployment, Workload
from trimoe.policies.loads import Loads
from trimoe.policies.options import parse_settings
from trimoe.policies.policy import Policy, deployed
from trimoe.policies.step import Foresight, LayerDone, LayerStep, NoForesight
from trimoe.policies.table import make_policy, policy_names, policy_type

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
