"""TriMoE (arXiv 2603.01058): hot experts on the GPU, warm ones on the CPU, cold ones on DIMMs."""

from trimoe.policies.systems.trimoe.policy import TriMoE

__all__ = ["TriMoE"]
