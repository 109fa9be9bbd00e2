"""Who decides where experts run: one file per system, all with one interface. Needs no torch."""

from trimoe.policies.deployment import Deployment, Workload
from trimoe.policies.loads import Loads
from trimoe.policies.options import parse_settings
from trimoe.policies.plan import IDLE, SPLIT, LayerPlan, LayerState, Prefetch, Relayout, check_plan
from trimoe.policies.policy import Policy, StepView
from trimoe.policies.table import make_policy, policy_names, policy_type

__all__ = [
    "IDLE",
    "SPLIT",
    "Deployment",
    "LayerPlan",
    "LayerState",
    "Loads",
    "Policy",
    "Prefetch",
    "Relayout",
    "StepView",
    "Workload",
    "check_plan",
    "make_policy",
    "parse_settings",
    "policy_names",
    "policy_type",
]
