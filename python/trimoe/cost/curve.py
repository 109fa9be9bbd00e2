"""Nanoseconds of one expert over its tokens: measured, or by a roofline with a ramp."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LookupCurve", "RampCurve", "never_falling"]


class LookupCurve:
    """Straight lines between measured points; flat before the first, the last line goes on after the last.

    Args:
        tokens: rising.
        ns: of each; never falling, so that the curve does not either.
        scale: that all ns are multiplied with, for an expert of another size than the measured one.
    """

    def __init__(self, tokens: Sequence[int], ns: Sequence[float], scale: float = 1.0) -> None:
        self._tokens, self._ns = tuple(tokens), tuple(one * scale for one in ns)

    def __call__(self, tokens: int) -> float:
        """Nanoseconds of that many tokens."""
        xs, ys = self._tokens, self._ns
        right = bisect_left(xs, tokens)
        if right < len(xs) and xs[right] == tokens:
            return ys[right]
        if right == 0:
            return ys[0]
        if len(xs) == 1:  # one point beyond which nothing is known: in proportion
            return ys[0] * tokens / xs[0]
        right = min(right, len(xs) - 1)
        slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
        return ys[right - 1] + slope * (tokens - xs[right - 1])


@dataclass(frozen=True)
class RampCurve:
    """Compute by a roofline: at half_tokens, half of max_efficiency of the peak is reached.

    bytes_ns: what the weights take from the memory beside the unit, which computing cannot undercut.
    """

    flops_per_token: float
    peak_tflops: float
    max_efficiency: float
    half_tokens: float
    bytes_ns: float = 0.0

    def __call__(self, tokens: int) -> float:
        """Nanoseconds of that many tokens."""
        flops = self.flops_per_token * (tokens + self.half_tokens)
        return max(flops / (self.peak_tflops * self.max_efficiency * 1e3), self.bytes_ns)


def never_falling(values: Sequence[float]) -> list[float]:
    """The never-falling sequence nearest to `values` in squares: neighbours that fall share their mean."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]
