"""The predicted and the real timeline of a run, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimoe.executor.engine import Engine
from trimoe.executor.perfetto import Process, Slice, clock_process
from trimoe.runtime.telemetry import Telemetry, domain_name

__all__ = ["timelines"]

_POLICY, _CALLS, _FIRST_DOMAIN = range(3)


def timelines(engines: Sequence[Engine], telemetry: Telemetry) -> Iterator[Process]:
    """The clock of every phase, then this machine.

    On the machine calls are where they were. A domain's times are measured, emulated or modelled, as the name
    of its thread says; they begin when the work was submitted, or when the domain had done that before.
    """
    begin_ns = 0.0
    for engine in engines:
        clock, title = engine.model.clock, f"{engine.phase}, predicted"
        yield clock_process(clock, engine.cost.resources.names, title=title, offset_ns=begin_ns)
        begin_ns += clock.now_ns
    kinds = {part["code"]: part["kind"] for record, _ in telemetry.history for part in record["domains"]}
    codes = sorted(kinds)
    threads = [f"{domain_name(code)} ({kinds[code]})" for code in codes]
    yield Process("this machine", ("policy", "op", *threads), _slices(telemetry, codes))


def _slices(telemetry: Telemetry, codes: Sequence[int]) -> Iterator[Slice]:
    first_ns = min((record["begun_ns"] for record, _ in telemetry.history), default=0)
    free_ns = dict.fromkeys(codes, 0.0)
    for record, took_ns in telemetry.history:
        begun = record["begun_ns"] - first_ns
        tokens = {"tokens": record["tokens"]}
        yield _POLICY, begun, begun + record["plan_ns"], "plan", tokens
        yield _CALLS, begun, begun + record["took_ns"], "call", tokens
        for part in record["domains"]:
            code = part["code"]
            start = max(free_ns[code], begun + record["submitted_ns"])
            free_ns[code] = end = start + took_ns[code]
            work = {"experts": part["experts"], "rows": part["rows"]}
            yield _FIRST_DOMAIN + codes.index(code), start, end, "experts", work
