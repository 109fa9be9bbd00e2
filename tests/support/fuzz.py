"""Random tests in rounds: so many, always the same; more and others when asked.

FUZZ_TIMES=20 makes all of them 20 times as long, FUZZ_SEED=7 takes other rounds, FUZZ_ONLY=123 one round.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["fuzz"]


def fuzz(rounds: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Calls the test so often, each time with another `seed`; a failure says how to have that round alone."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            for seed in _seeds(rounds):
                try:
                    test(seed=seed, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    raise AssertionError(f"FUZZ_ONLY={seed} runs the round that failed") from error

        signature = inspect.signature(test)
        fixtures = [value for name, value in signature.parameters.items() if name != "seed"]
        run.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return run

    return decorate


def _seeds(rounds: int) -> Iterable[int]:
    if "FUZZ_ONLY" in os.environ:
        yield int(os.environ["FUZZ_ONLY"])
        return
    first = int(os.environ.get("FUZZ_SEED", "0")) << 32
    for seed in range(first, first + rounds * int(os.environ.get("FUZZ_TIMES", "1"))):
        if "FUZZ_TIMES" in os.environ:  # the last one on the screen is that which ended the process
            os.write(2, f"\rround {seed} ".encode())
        yield seed
