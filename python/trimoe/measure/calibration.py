"""Measures this machine's CPU for the cost core: a profile, and how far its predictions are off."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimoe import __version__
from trimoe.atomic_file import atomic_file
from trimoe.cost.curve import never_falling
from trimoe.cost.rates import measured_curve
from trimoe.hardware.machine import Machine, detect_machine
from trimoe.hardware.profile import CALIBRATED, ExpertTable, Profile, parse_profile
from trimoe.hardware.roofline import Roofline, measure_roofline
from trimoe.hardware.torch_state import torch_state
from trimoe.layer.expert_layer import WEIGHT_FORMATS
from trimoe.measure.expert_timer import ACTIVE, ExpertTimer

__all__ = ["FULL", "QUICK", "Calibration", "Check", "Scope", "calibrate", "rough_profile", "write_json"]


@dataclass(frozen=True)
class Scope:
    """What is measured: experts of `sizes` (H, I) over `tokens` for the tables, the rest to check them.

    held_out: tokens of the first size that no table knows; other: (H, I, tokens) of an expert between the
    sizes. rounds: samples of each, of which the least counts: other work on the machine only ever adds.
    """

    formats: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    held_out: tuple[int, ...]
    other: tuple[int, int, tuple[int, ...]]
    rounds: int

    @property
    def steps(self) -> int:
        """Measurements, for a progress bar."""
        return 1 + len(self.formats) * (len(self.sizes) + 1) * self.rounds


FULL = Scope(
    formats=WEIGHT_FORMATS,
    sizes=((1024, 512), (4096, 1536)),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    held_out=(3, 12, 48, 192),
    other=(2048, 768, (1, 6, 24, 96)),
    rounds=9,
)
QUICK = Scope(
    formats=("bf16", "int8", "int4"),
    sizes=((512, 512), (2048, 768)),
    tokens=(1, 4, 16, 64),
    held_out=(2, 32),
    other=(1024, 768, (1, 8)),
    rounds=7,
)


@dataclass(frozen=True)
class Check:
    """One held-out measurement beside what the tables predict; error_pct is of the measured time."""

    weights: str
    hidden: int
    inter: int
    tokens: int
    predicted_ns: float
    measured_ns: float

    @property
    def error_pct(self) -> float:
        """Positive where the prediction is too long."""
        return 100 * (self.predicted_ns / self.measured_ns - 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "error_pct": self.error_pct}


@dataclass(frozen=True)
class Calibration:
    """The profile as JSON, and the checks that are in it too.

    unrest_pct: by how much the median sample was longer than the least, mean of all: how busy others were.
    """

    profile: dict[str, Any]
    checks: tuple[Check, ...]
    unrest_pct: float

    @property
    def mean_error_pct(self) -> float:
        """Mean of the errors without their signs."""
        return sum(abs(check.error_pct) for check in self.checks) / len(self.checks)

    @property
    def worst_error_pct(self) -> float:
        """The largest error without its sign."""
        return max(abs(check.error_pct) for check in self.checks)


def calibrate(scope: Scope, advance: Callable[[], None] = lambda: None) -> Calibration:
    """Measures; calls `advance` after each of `scope.steps`. Torch's threads are those that are set.

    Raises:
        FailureError: too little memory.
    """
    import torch

    machine, roofline = detect_machine(), measure_roofline(threads=torch.get_num_threads())
    advance()
    tables, checks, unrest = list[dict[str, Any]](), list[Check](), list[float]()
    for weights in scope.formats:
        held_out: list[tuple[int, int, int, float]] = []
        for hidden, inter in scope.sizes:
            extra = scope.held_out if (hidden, inter) == scope.sizes[0] else ()
            counts = (*scope.tokens, *extra)
            ns = _least(_samples(weights, hidden, inter, counts, scope.rounds, advance), unrest)
            tables.append(_table(weights, hidden, inter, scope, ns, machine))
            held_out += [(hidden, inter, count, ns[count]) for count in extra]
        hidden, inter, counts = scope.other
        ns = _least(_samples(weights, hidden, inter, counts, scope.rounds, advance), unrest)
        held_out += [(hidden, inter, count, ns[count]) for count in counts]
        checks += [_check(tables, weights, *one) for one in held_out]
    unrest_pct = statistics.mean(unrest)
    raw = {
        **_profile(machine, roofline, tables),
        "fingerprint": {**_fingerprint(machine, roofline), "rounds": scope.rounds, "unrest_pct": unrest_pct},
        "validation": [check.as_dict() for check in checks],
    }
    parse_profile(raw, "the calibrated profile")  # what cannot be read is not written
    return Calibration(raw, tuple(checks), unrest_pct)


def rough_profile() -> Profile:
    """This machine by its roofline alone, which takes seconds: for whoever has not calibrated it.

    Experts are taken to be as fast as memory and the kernel's peak permit. Torch's threads are those that
    are set. FailureError: too little memory.
    """
    import torch

    machine, roofline = detect_machine(), measure_roofline(threads=torch.get_num_threads())
    raw = _profile(machine, roofline, [])
    raw["about"] = f"{machine.cpu_brand}, {roofline.threads} thread(s), by its roofline: not calibrated"
    raw["cpu"]["max_efficiency"] = {"value": 1, "assumption": "not calibrated"}
    return parse_profile(raw, "this machine's profile")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """The whole file or none: it takes its place only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def _samples(
    weights: str, hidden: int, inter: int, counts: Sequence[int], rounds: int, advance: Callable[[], None]
) -> dict[int, list[float]]:
    timer = ExpertTimer(weights, hidden, inter)
    try:
        return timer.samples_ns(counts, rounds, advance)
    finally:
        timer.close()


def _least(samples: Mapping[int, list[float]], unrest: list[float]) -> dict[int, float]:
    """The least sample of each count; `unrest` grows by what the medians lie above, in percent."""
    for one in samples.values():
        unrest.append(100 * (statistics.median(one) / min(one) - 1))
    return {count: min(one) for count, one in samples.items()}


def _table(
    weights: str, hidden: int, inter: int, scope: Scope, ns: Mapping[int, float], machine: Machine
) -> dict[str, Any]:
    return {
        "domain": "cpu",
        "weights": weights,
        "hidden": hidden,
        "inter": inter,
        "tokens": list(scope.tokens),
        "ns": never_falling([ns[count] for count in scope.tokens]),
        "source": f"trimoe calibrate on {machine.cpu_brand}: the op, {ACTIVE} experts a call, least of "
        f"{scope.rounds}, made never to fall",
    }


def _check(
    tables: list[dict[str, Any]], weights: str, hidden: int, inter: int, tokens: int, measured_ns: float
) -> Check:
    """What the cost core says of a held-out expert."""
    curve = measured_curve([ExpertTable(**one) for one in tables], "cpu", weights, hidden, inter)
    assert curve is not None
    return Check(weights, hidden, inter, tokens, curve(tokens), measured_ns)


def _profile(machine: Machine, roofline: Roofline, tables: list[dict[str, Any]]) -> dict[str, Any]:
    probe = "trimoe calibrate: a probe in registers, median"
    best = 0.0
    for table in tables:
        flops = 6 * table["hidden"] * table["inter"] * table["tokens"][-1]
        best = max(best, flops / table["ns"][-1] / roofline.gflops[table["weights"]])
    return {
        "name": CALIBRATED,
        "about": f"{machine.cpu_brand}, {roofline.threads} thread(s), measured by trimoe calibrate",
        "cpu": {
            "name": machine.cpu_brand,
            "cores": {"value": roofline.threads, "source": "trimoe calibrate: threads measured with"},
            "peak_tflops": {
                name: {"value": gflops / 1e3, "source": probe} for name, gflops in roofline.gflops.items()
            },
            "max_efficiency": {
                "value": min(1.0, best),
                "source": "trimoe calibrate: the best table over its peak, for work that no table has",
            },
            "half_tokens": {"value": 0, "assumption": "the tables count; others get no ramp"},
        },
        "memory": {
            "channels": {"value": 1, "assumption": "channels cannot be told apart: all as one"},
            "channel_gbps": {
                "value": roofline.bandwidth_gbps,
                "source": "trimoe calibrate: read bandwidth beyond the caches, median",
            },
            "efficiency": {"value": 1, "source": "channel_gbps is measured"},
            "capacity_bytes": {"value": machine.memory.total_bytes, "source": "the system"},
        },
        "tables": tables,
    }


def _fingerprint(machine: Machine, roofline: Roofline) -> dict[str, Any]:
    return {
        "cpu_brand": machine.cpu_brand,
        "logical_cpus": machine.n_logical_cpus,
        "threads": roofline.threads,
        "isa": roofline.isa,
        "torch": torch_state().version,
        "trimoe": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
