"""Generated traces of a small model, each made once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trimoe.trace import GeneratorSpec, Trace, generate_trace

BASE = dict(layers=10, experts=64, topk=4, steps=32, batch=64)


@lru_cache(maxsize=32)
def made(**changes: Any) -> Trace:
    return generate_trace(GeneratorSpec(**{**BASE, **changes}))
