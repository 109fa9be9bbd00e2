"""MoE-Lightning (arXiv 2411.11217): a search by a hierarchical roofline."""

from trimoe.policies.systems.moe_lightning.policy import MoELightning

__all__ = ["MoELightning"]
