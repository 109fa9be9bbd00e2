"""HybriMoE (arXiv 2504.05897): a schedule per layer, prefetch by impact, a cache by scores."""

from trimoe.policies.systems.hybrimoe.policy import HybriMoE

__all__ = ["HybriMoE"]
