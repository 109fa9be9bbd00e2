"""FlexGen (arXiv 2303.06865): a linear program for what lies where."""

from trimoe.policies.systems.flexgen.policy import FlexGen

__all__ = ["FlexGen"]
