"""The core's arithmetic against an FFN in double, on experts drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trimoe import _ndp
from trimoe.ndp.checks.check import ANY_GRADE, Check, exactly
from trimoe.ndp.core import expert_ffn
from trimoe.ndp.fleet import Fleet

__all__ = ["check_core"]

_RANKS = (1, 2, 4, 8)
_NO_NUMBER = 1e9  # a distance, for results that are none


@dataclass(frozen=True)
class _Case:
    hidden: int
    inter: int
    tokens: int
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    group: int = 0  # of int4

    def shape(self, number: str) -> dict[str, int | str | bool]:
        group = self.group if number == "int4" else 0
        return {
            "hidden": self.hidden,
            "inter": self.inter,
            "number": number,
            "group": group,
            "activation": self.activation,
            "gated": self.gated,
            "bias": self.bias,
        }


# Leaves that cut groups and tiles of k, fewer columns than a tile has, every activation; an expert of
# Qwen3-30B-A3B.
_CASES = (
    _Case(131, 260, 3, bias=True),
    _Case(1, 1, 1),
    _Case(31, 15, 9, "gelu", bias=True, group=32),
    _Case(70, 290, 4, "gelu_tanh", gated=False, bias=True, group=64),
    _Case(97, 113, 2, "relu2", gated=False, group=32),
    _Case(200, 136, 5, "swiglu_oai", bias=True),
    _Case(2048, 768, 2),
)


def check_core() -> Iterator[Check]:
    """Distance from the FFN in double, of the bound and of the result; bits that differ between ranks."""
    differing = runs = 0
    for number in ("bf16", "fp16", "int8", "int4"):
        of_bound = of_result = 0.0
        for seed, case in enumerate(_CASES):
            found = _run(case, number, seed)
            of_bound, of_result = max(of_bound, found.of_bound), max(of_result, found.of_result)
            differing, runs = differing + found.differing_bits, runs + found.runs
        yield Check(ANY_GRADE, f"FFN in {number} and in double, distance of its bound", "", of_bound, 0, 1)
        # No more than h, rounded to bf16, is off by.
        what = f"FFN in {number} and in double, distance of the result (RMS)"
        yield Check(ANY_GRADE, what, "%", 100 * of_result, 0, 100 * 2.0**-8)
    what = f"FFN on 1, 2, 4, 8 ranks: bits that differ in {runs} runs"
    yield exactly(ANY_GRADE, what, "bits", differing, 0)


@dataclass(frozen=True)
class _Found:
    of_bound: float
    of_result: float
    differing_bits: int
    runs: int


def _run(case: _Case, number: str, seed: int) -> _Found:
    shape = case.shape(number)
    native = _ndp.CoreShape(**shape)  # type: ignore[arg-type]
    weights = _ndp.draw_expert(native, seed)
    x = _ndp.draw_rows(case.tokens * case.hidden, seed + 1)
    results = [expert_ffn(weights, x, ranks=ranks, **shape) for ranks in _RANKS]  # type: ignore[arg-type]
    # A DIMM takes no expert whose padding outweighs it.
    for ranks in _RANKS if case.hidden * case.inter > 5000 else ():
        fleet = Fleet(1, ranks=ranks)
        fleet.place(0, weights, 0, **shape)  # type: ignore[arg-type]
        out = bytearray(case.tokens * case.hidden * 4)
        fleet.run([(0, x, out)])
        results.append(bytes(out))
    values, bounds = (memoryview(one).cast("d") for one in _ndp.core_reference(weights, x, native, 1.0))
    found = memoryview(results[0]).cast("f")
    distances = [abs(a - b) for a, b in zip(found, values, strict=True)]
    of_bound = of_result = _NO_NUMBER
    if all(map(math.isfinite, distances)):
        of_bound = max(_share(*pair) for pair in zip(distances, bounds, strict=True))
        of_result = _share(math.hypot(*distances), math.hypot(*values))
    return _Found(of_bound, of_result, _differing_bits(results), len(results))


def _share(distance: float, whole: float) -> float:
    """Of nothing, nothing: products with codes of zero are exact."""
    return distance / whole if whole else _NO_NUMBER * distance


def _differing_bits(results: list[bytes]) -> int:
    first, *others = (int.from_bytes(one, "little") for one in results)
    return sum((first ^ other).bit_count() for other in others)
