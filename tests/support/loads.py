"""Loads by hand, and what there is in one."""

from __future__ import annotations

import numpy as np

from trimoe.arrays import Floats


def load(*ns: float) -> Floats:
    """Of each resource in turn."""
    return np.array(ns, np.float64)


def parts_of(given: Floats) -> list[tuple[int, float]]:
    """(resource, nanoseconds) of those that are occupied."""
    return [(resource, ns) for resource, ns in enumerate(given.tolist()) if ns]
