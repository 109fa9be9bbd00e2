"""Host and NDP on one rank against what docs/ndp.md derives: a model, compared with its own closed form."""

from __future__ import annotations

from collections.abc import Iterator

from trimoe.ndp.checks.check import Check, near
from trimoe.ndp.checks.dram import refresh_loss_pct
from trimoe.ndp.dram import DramSpec
from trimoe.ndp.sharing import contention

__all__ = ["check_sharing"]

_ROW_SWITCH_LOSS = 0.03  # what rows that are opened again may cost


def check_sharing(spec: DramSpec) -> Iterator[Check]:
    """What the NDP keeps beside a host at full rate; where the clocks of turns go."""
    full_gbps = 2 * spec.peak_gbps  # both sub-channels; more than fits
    for ranks in (2, 4):
        found = contention(spec.name, "concurrent", ranks=ranks, host_gbps=full_gbps)
        taken = found.host_gbps * ranks / found.undisturbed_gbps  # of one rank
        what = f"CONCURRENT, host at full rate, {ranks} ranks: kept (model)"
        yield near(spec.name, what, "of all", found.ndp_share, (ranks - taken) / ranks, _ROW_SWITCH_LOSS)
    what = "CONCURRENT, host at full rate: its own (model)"
    yield Check(spec.name, what, "of a rank", taken, 1, _ROW_SWITCH_LOSS)
    t = spec.timing_clocks
    turns = contention(spec.name, "exclusive", host_gbps=8.0)
    bursts = (turns.ndp_served + turns.host_served_once) * t["nBL"] / (1 - refresh_loss_pct(spec) / 100)
    switches = turns.switches * (t["nRP"] + t["nRCD"] + t["nCWL"] + t["nBL"] + 17)
    what = "EXCLUSIVE: clocks by formula, of those simulated (model)"
    yield Check(spec.name, what, "", (bursts + switches) / turns.clocks, 1, 0.01)
