"""MoE-Infinity (arXiv 2401.14361): caching and prefetching by the activations of earlier sequences."""

from trimoe.policies.systems.moe_infinity.policy import MoEInfinity

__all__ = ["MoEInfinity"]
