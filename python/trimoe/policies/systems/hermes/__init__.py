"""Hermes (arXiv 2502.16963): hot experts on the GPU, cold ones on DIMMs, by a program."""

from trimoe.policies.systems.hermes.policy import Hermes

__all__ = ["Hermes"]
