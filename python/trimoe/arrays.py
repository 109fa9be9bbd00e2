"""What arrays hold, for annotations; shapes stand in docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Floats", "Ints", "Numbers", "Singles"]

Ints = npt.NDArray[np.integer[Any]]  # of any width
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.number[Any]]  # of any kind that can be added and compared
