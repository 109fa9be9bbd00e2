"""Imported before transformers: where that is missing, an error of one line says what to install.

Everything but models works without transformers: the op, `ExpertLayer`, the simulator, the DIMM emulator.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from trimoe.errors import InputError

if find_spec("transformers") is None:
    raise InputError(
        expected="transformers, which models need", got="none installed", hint="pip install 'trimoe[hf]'"
    )
if sys.flags.optimize > 1:
    raise InputError(
        expected="Python with docstrings, which transformers reads while it makes models",
        got="python -OO or PYTHONOPTIMIZE=2, which removes them",
        hint="python -O or PYTHONOPTIMIZE=1, which do not",
    )
