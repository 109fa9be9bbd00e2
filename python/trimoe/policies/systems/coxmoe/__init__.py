"""CoX-MoE (arXiv 2605.17889): experts see the whole batch; attention and experts placed offline."""

from trimoe.policies.systems.coxmoe.policy import CoxMoE

__all__ = ["CoxMoE"]
