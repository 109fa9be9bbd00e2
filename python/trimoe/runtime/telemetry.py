"""What the calls of a model's layers took, by domain, beside what was predicted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trimoe import _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT
from trimoe.runtime.policy_use import NEWEST

if TYPE_CHECKING:
    from trimoe._runtime import Record

__all__ = ["DomainUse", "Telemetry", "domain_name"]


def domain_name(code: int) -> str:
    """As people call it."""
    return {CPU: "CPU", GPU: "GPU", SPLIT: "all DIMMs"}.get(code, f"DIMM {code - FIRST_DIMM}")


@dataclass
class DomainUse:
    """What one domain did.

    experts: (call, expert) pairs; tokens: (token, expert) pairs. predicted_ns: by the cost core. took_ns:
    "measured" on this machine, "emulated" by its DIMMs, or "modelled" by the cost core for a domain that it
    lacks; of the CPU, its kernels with the computed_tokens that they computed, which include those of domains
    whose arithmetic is the host's.
    """

    name: str
    kind: str
    experts: int = 0
    tokens: int = 0
    predicted_ns: float = 0.0
    took_ns: float = 0.0
    computed_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


class Telemetry:
    """Reads the records of calls.

    Args:
        handles: of a model's MoE layers, in order.
        keep: whether `history` is kept.

    Attributes:
        uses: by code, since the last `reset`. to_submit_ns: of the last calls, from the router to the
            first work that was submitted, the policy included. history: every call with what it took by
            code.
    """

    def __init__(self, handles: Sequence[int], *, keep: bool) -> None:
        self.history: list[tuple[Record, dict[int, float]]] = []
        self._keep = keep
        self._recorder = _runtime.Recorder()
        self._layers = {handle: index for index, handle in enumerate(handles)}
        for handle in handles:
            _runtime.set_recorder(handle, self._recorder)
        self.reset()

    def reset(self) -> None:
        """Counts from here on."""
        self.uses: dict[int, DomainUse] = {}
        self.to_submit_ns: deque[int] = deque(maxlen=NEWEST)

    def newest(self, layer: int) -> Record | None:
        """Of the call of a MoE layer that has just ended; older ones are forgotten. None: it has failed."""
        records, _ = self._recorder.drain()
        return next((one for one in reversed(records) if self._layers[one["layer"]] == layer), None)

    def took_ns(self, record: Record | None, predicted_ns: Mapping[int, float]) -> dict[int, float]:
        """By domain, what a call took; counts it.

        predicted_ns: by domain; also what a domain took that this machine lacks, and all of a failed call.
        """
        if record is None:
            return dict(predicted_ns)
        self.to_submit_ns.append(record["submitted_ns"])
        found: dict[int, float] = {}
        for part in record["domains"]:
            code, kind = part["code"], part["kind"]
            on_dimms = (ns for domain, ns in predicted_ns.items() if domain >= FIRST_DIMM)
            predicted = max(on_dimms, default=0.0) if code == SPLIT else predicted_ns.get(code, 0.0)
            took = predicted if kind == "modelled" else part["took_ns"]
            use = self.uses.setdefault(code, DomainUse(domain_name(code), kind))
            use.experts += part["experts"]
            use.tokens += part["rows"]
            use.predicted_ns += predicted
            use.took_ns += took
            if code == CPU:
                use.computed_tokens += record["host_rows"]
            found[code] = took
        if self._keep:
            self.history.append((record, found))
        return found
