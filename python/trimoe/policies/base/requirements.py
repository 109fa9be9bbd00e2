"""The parts of a machine that a system requires, and the error where one is missing."""

from __future__ import annotations

from trimoe.cost import CostModel
from trimoe.errors import InputError

__all__ = ["need"]


def need(cost: CostModel, system: str, *, gpu: bool = False, ndp: bool = False) -> None:
    """InputError where the machine lacks a GPU or DIMMs with a core that a system is built on."""
    profile = cost.profile
    if gpu and profile.gpu is None:
        raise InputError(
            expected=f"a machine with a GPU for {system}", got=profile.name, hint="--hardware t4, a100-8452y"
        )
    if ndp and profile.ndp is None:
        raise InputError(
            expected=f"a machine with DIMM-NDPs for {system}",
            got=profile.name,
            hint="--hardware h100-8470-ndp16, rtx4090-13900k-ndp8",
        )
