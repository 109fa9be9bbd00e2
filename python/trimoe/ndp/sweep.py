"""One expert over rates of the core, ranks and DIMM links, which are all assumptions."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.ndp.expert import RelayoutTime, expert_time, relayout_time, ridge_tokens

__all__ = ["ExpertSweep", "MoveRow", "RidgeRow", "SweepRow", "sweep_expert"]

TFLOPS = (0.25, 0.26, 0.5, 1.0)
RANKS = (1, 2, 4)
LINK_GBPS = (12.5, 25.0, 50.0)
TOKENS = tuple(range(1, 17))


@dataclass(frozen=True)
class SweepRow:
    """One case. link_gbps: None where the expert is localized and the link is not used."""

    tflops: float
    ranks: int
    link_gbps: float | None
    tokens: int
    passes: int
    total_ns: float
    closed_form_ns: float


@dataclass(frozen=True)
class RidgeRow:
    """Tokens from which the core is slower than the stream, by formula."""

    tflops: float
    ranks: int
    ridge_tokens: float


@dataclass(frozen=True)
class MoveRow:
    """Localized to striped or back, of ranks as many as the sweep has at most."""

    link_gbps: float
    time: RelayoutTime


@dataclass(frozen=True)
class ExpertSweep:
    """All cases: localized [tflops, ranks, tokens], striped [tflops, ranks, link, tokens]."""

    localized: tuple[SweepRow, ...]
    striped: tuple[SweepRow, ...]
    ridge: tuple[RidgeRow, ...]
    relayout: tuple[MoveRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def sweep_expert(
    hidden: int,
    inter: int,
    *,
    dtype: str = "bf16",
    spec: str = "4800B",
    buffer_kib: int = 256,
    dimms: int = 16,
) -> ExpertSweep:
    """Simulates one expert in all cases of `TFLOPS`, `RANKS`, `LINK_GBPS` and `TOKENS`.

    Args:
        hidden: H.
        inter: I.
        dtype: of the weights.
        spec: DRAM speed grade.
        buffer_kib: of the core.
        dimms: that the striped expert lies on.

    Raises:
        InputError: a size out of range.
    """

    def row(tflops: float, ranks: int, link_gbps: float | None, tokens: int) -> SweepRow:
        core: dict[str, Any] = {"spec": spec, "dtype": dtype, "buffer_kib": buffer_kib}
        core |= {"ranks": ranks, "tflops": tflops}
        found = (
            expert_time(hidden, inter, tokens, **core)
            if link_gbps is None
            else expert_time(
                hidden, inter, tokens, **core, layout="striped", dimms=dimms, link_gbps=link_gbps
            )
        )
        return SweepRow(tflops, ranks, link_gbps, tokens, found.passes, found.total_ns, found.closed_form_ns)

    cores = list(itertools.product(TFLOPS, RANKS))
    move: dict[str, Any] = {"spec": spec, "dtype": dtype, "ranks": max(RANKS), "dimms": dimms}
    return ExpertSweep(
        localized=tuple(row(*core, None, tokens) for core in cores for tokens in TOKENS),
        striped=tuple(row(*core, link, tokens) for core in cores for link in LINK_GBPS for tokens in TOKENS),
        ridge=tuple(
            RidgeRow(tflops, ranks, ridge_tokens(spec=spec, dtype=dtype, ranks=ranks, tflops=tflops))
            for tflops, ranks in cores
        ),
        relayout=tuple(
            MoveRow(link, relayout_time(hidden, inter, **move, link_gbps=link)) for link in LINK_GBPS
        ),
    )
