"""What arrays hold, for annotations; shapes stand in docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Floats", "Ints"]

Ints = npt.NDArray[Any]  # of any integer type
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
