"""Where TriMoE's experts should lie: which are warm (striped, for the CPU) and which cold (whole, on a DIMM).

TriMoE (arXiv 2603.01058) calls an expert warm that saturates a DIMM's compute. Where that line is, the paper
does not say; here it is a multiple of the ridge of a DIMM's time over tokens, or where both sides of the line
take the same time.
"""

from __future__ import annotations

import numpy as np

from trimoe.arrays import Bools, Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED

__all__ = ["ExpectedTimes", "balanced_line", "lay_out", "ridge_tokens"]

# Token counts that times are tabulated at; on lines between them.
_NODES = (*range(1, 17), *(2**power for power in range(5, 21)))


class ExpectedTimes:
    """What experts take alone in nanoseconds, of expected tokens that need be no whole number.

    Args:
        cost: of the model on the machine.
        cpu: whether the CPU is a domain.

    Attributes:
        n_dimms: with a core. host_ns, host_dimm_ns: reading a striped expert: time of every channel, and
            what every DIMM loses.
    """

    def __init__(self, cost: CostModel, *, cpu: bool) -> None:
        self.n_dimms = cost.resources.n_dimms
        self._fetched_ns = cost.expert_ns(GPU, 1) if cost.profile.gpu else None
        # Beside the GPU the CPU; where neither is there, a DIMM that gathers the expert.
        host = CPU if cpu else FIRST_DIMM
        alone = cpu or self._fetched_ns is None
        self._host = np.array([cost.expert_ns(host, one) for one in _NODES]) if alone else None
        home = FIRST_DIMM if self.n_dimms else CPU
        self._home = np.array([cost.expert_ns(home, one, 0) for one in _NODES])
        read = cost.host_load(cost.expert_bytes)
        self.host_ns = float(read[cost.resources.channel(0)])
        self.host_dimm_ns = float(read[cost.resources.dimm(0)]) if self.n_dimms else 0.0

    def on_dimm(self, expected: Floats) -> Floats:
        """Localized, on its DIMM; where that has no core, on the CPU."""
        return _of(self._home, expected)

    def on_host(self, expected: Floats) -> Floats:
        """Striped: CPU and GPU side by side, each with what it does sooner; at least the channels' time."""
        likely = _active(expected)
        own_ns = _of(self._host, expected) if self._host is not None else None
        if self._fetched_ns is not None:
            ns = np.full(len(expected), self._fetched_ns) * likely
            if own_ns is not None:
                ns = np.divide(own_ns * ns, own_ns + ns, out=np.zeros_like(ns), where=ns > 0)
        else:
            assert own_ns is not None
            ns = own_ns
        return np.maximum(ns, self.host_ns * likely)


def ridge_tokens(cost: CostModel) -> float:
    """Tokens from which on a DIMM computes longer than it streams the weights."""
    per_token_ns = (cost.expert_ns(FIRST_DIMM, 64, 0) - cost.expert_ns(FIRST_DIMM, 32, 0)) / 32
    return cost.expert_ns(FIRST_DIMM, 1, 0) / max(per_token_ns, 1e-9)


def balanced_line(
    times: ExpectedTimes, expected: Floats, resident: Bools, dimm_ns: Floats, host_ns: Floats
) -> float:
    """The expected tokens from which on experts are better striped: where the slower side is fastest.

    expected, resident: [E] of a layer. dimm_ns, host_ns: [E], `times` of the expected tokens. Infinite where
    none should be striped.
    """
    order = np.argsort(expected, kind="stable")
    order = order[~resident[order]]
    if not len(order):
        return float("inf")
    tokens, cold_ns = expected[order], dimm_ns[order]
    lost_ns = times.host_dimm_ns * _active(tokens)
    # Entry k: the k coldest experts lie on DIMMs, all others are striped.
    longest = np.maximum.accumulate(np.append(0.0, cold_ns))
    cold = np.maximum(_before(cold_ns) / times.n_dimms + _from(lost_ns), longest)
    best = int(np.argmin(np.maximum(cold, _from(host_ns[order]))))
    return float(tokens[best]) if best < len(tokens) else float("inf")


def lay_out(times: ExpectedTimes, expected: Floats, resident: Bools, line: float, first: int = 0) -> Ints:
    """Layouts [E] int16: striped from `line` tokens on; all others on DIMMs, the longest first, each where
    least is expected. first: the DIMM that equals begin at, so that layers do not all fill the same.
    """
    layout = np.full(len(expected), STRIPED, np.int16)
    ns, n_dimms = times.on_dimm(expected), times.n_dimms
    load = np.zeros(n_dimms)
    for one in np.argsort(-ns, kind="stable").tolist():
        if expected[one] < line:
            dimm = int((np.roll(load, -first).argmin() + first) % n_dimms)
            layout[one] = dimm
            load[dimm] += 1e-6 if resident[one] else ns[one] + 1e-6  # idle ones spread as well
    return layout


def _active(expected: Floats) -> Floats:
    """How likely an expert gets any token, if they come one by one (Poisson)."""
    likely: Floats = -np.expm1(-expected)
    return likely


def _of(table: Floats, expected: Floats) -> Floats:
    """Time at the tokens that an expert has when it has any, times how likely that is."""
    likely = _active(expected)
    tokens = np.divide(expected, likely, out=np.ones_like(likely), where=likely > 0)
    found: Floats = likely * np.interp(tokens, _NODES, table)
    return found


def _before(values: Floats) -> Floats:
    return np.append(0.0, np.cumsum(values))


def _from(values: Floats) -> Floats:
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)
