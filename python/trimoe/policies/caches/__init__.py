"""Which experts stay in GPU memory: caches by name, what they hit, and whether moving pays."""

from trimoe.policies.caches.expert_cache import ExpertCache, HitCount
from trimoe.policies.caches.prefetch_gate import Worth
from trimoe.policies.caches.scores import CACHES, LayerCache, make_layer_cache

__all__ = ["CACHES", "ExpertCache", "HitCount", "LayerCache", "Worth", "make_layer_cache"]
