"""Fleets with experts, one DIMM by descriptors, and the times that a DIMM should take, by formula."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.ndp_core import Case, Problem, bytes_of, make_problem
from trimoe import _ndp
from trimoe.ndp import Completion, Descriptor, Flag, Fleet, Opcode, expert_config, spec

HOST, EXCLUSIVE, CONCURRENT = range(3)
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "swiglu_oai")
NUMBER_FLAGS = {"bf16": 0, "fp16": Flag.FP16, "int8": Flag.INT8, "int4": Flag.INT4}
DRAM = spec("4800B")
CLOCK_NS = DRAM.clock_ns
RESET_NS = 1000.0


def clocks(*names: str) -> float:
    """The sum of those timings, in nanoseconds."""
    return sum(DRAM.timing_clocks[name] for name in names) * CLOCK_NS


COMMAND_NS = clocks("nCWL", "nBL") + 17 * CLOCK_NS
CLOSE_NS = clocks("nRP")
ROW_NS = clocks("nRAS", "nRP")


def channel_ns(nbytes: int) -> float:
    """Both sub-channels, in whole bursts."""
    return math.ceil(nbytes / 2 / DRAM.burst_bytes) * clocks("nBL")


def stream_gbps(ranks: int) -> float:
    """Of so many ranks, two sub-channels each, with what refresh leaves."""
    t = DRAM.timing_clocks
    return DRAM.peak_gbps * (1 - (t["nRTP"] + t["nRP"] + t["nRFC1"] + t["nRCD"]) / t["nREFI"]) * 2 * ranks


def expert_phases(case: Case, nbytes: int, tokens: int, ranks: int, tflops: float = 0.5) -> dict[str, Any]:
    """What the model of one expert says: for sizes that fill their tiles, the weights streamed once."""
    each = nbytes / (3 * case.hidden * case.inter)
    return _ndp.expert("4800B", case.hidden, case.inter, tokens, each, ranks, tflops, 1 << 40)


@functools.lru_cache(maxsize=64)
def problem(case: Case, seed: int = 0) -> Problem:
    """A packed expert with activations; remembered, since packing takes long."""
    return make_problem(case, seed)


def weights_of(one: Problem) -> bytes:
    return bytes(one.layer.memory)


def shape_of(case: Case) -> dict[str, Any]:
    """The arguments of Fleet.place."""
    return {
        "hidden": case.hidden,
        "inter": case.inter,
        "number": case.number.partition("_")[0],
        "group": case.spec.group,
        "activation": case.activation,
        "gated": case.gated,
        "bias": case.bias,
        **case.options,
    }


class Bench:
    """One DIMM of a fleet, driven by descriptors."""

    def __init__(self, fleet: Fleet, dimm: int = 0) -> None:
        self.fleet, self.dimm = fleet, dimm

    def submit(self, opcode: int, *, payload: Any = None, out: Any = None, **fields: Any) -> str:
        return self.fleet.submit(self.dimm, Descriptor(opcode, **fields), payload=payload, out=out)

    def do(self, opcode: int, **fields: Any) -> Completion:
        """Submits a command to an idle DIMM, and its completion."""
        self.drain()
        assert self.submit(opcode, **fields) != "QUEUE_FULL"
        self.fleet.advance(self.dimm)
        ended = self.drain()
        assert len(ended) == 1
        return ended[0]

    def drain(self) -> list[Completion]:
        """All completions that were not polled yet."""
        return list(iter(lambda: self.fleet.poll(self.dimm), None))  # type: ignore[arg-type]

    def set_mode(self, mode: int, mask: int = 0xFF) -> Completion:
        return self.do(Opcode.MODE_SET, nbytes=mode, rank_mask=mask)

    def configure(self, slot: int, address: int, case: Case, **changed: Any) -> Completion:
        """CFG_EXPERT of a case."""
        config = expert_config(
            case.hidden,
            case.inter,
            group=case.spec.packing.group if case.number.startswith("int4") else 0,
            activation=ACTIVATIONS.index(case.activation),
            gated=case.gated,
            bias=case.bias,
            **case.options,
        )
        fields: dict[str, Any] = {
            "slot": slot,
            "weight_addr": address,
            "flags": NUMBER_FLAGS[case.number.partition("_")[0]],
            "payload": config,
            "stride": _ndp.crc32c(config),
        }
        return self.do(Opcode.CFG_EXPERT, **{**fields, **changed})

    def load(self, slot: int, one: Problem) -> int:
        """Writes an expert to memory and configures it; its address."""
        weights = weights_of(one)
        address = self.fleet.allocate(self.dimm, len(weights))
        self.fleet.write(self.dimm, address, weights)
        assert self.configure(slot, address, one.case).status == "OK"
        return address

    @property
    def counters(self) -> dict[str, Any]:
        return self.fleet.stats()["dimms"][self.dimm]  # type: ignore[no-any-return]

    @property
    def now_ns(self) -> float:
        return self.fleet.advance(self.dimm, 0.0)


def place(fleet: Fleet, expert: int, one: Problem, dimm: int) -> None:
    fleet.place(expert, weights_of(one), dimm, **shape_of(one.case))


def outcome(fleet: Fleet, jobs: list[tuple[int, Problem]], threads: int = 1) -> tuple[float, list[bytes]]:
    """Runs jobs; the emulated time, and the results."""
    results = [bytearray(4 * job[1].x.numel()) for job in jobs]
    rows = [bytes_of(job[1].x) for job in jobs]
    ns = fleet.run(
        [(job[0], x, out) for job, x, out in zip(jobs, rows, results, strict=True)], threads=threads
    )
    return ns, [bytes(one) for one in results]


def expected(one: Problem, scale: float = 1.0, onto: bytes | None = None) -> bytes:
    """What the functional core says."""
    return bytes(one.run(scale=scale, onto=onto).numpy().tobytes())


def distance(result: bytes, wanted: bytes) -> float:
    """Relative, of results in fp32."""
    found, exact = (np.frombuffer(one, np.float32).astype(np.float64) for one in (result, wanted))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def fitting(one: Problem, x_tokens: int) -> Problem:
    """The same expert with other tokens."""
    return Problem(one.case, make_problem(replace(one.case, tokens=x_tokens), 3).x, one.layer)


def about(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


def took(ended: Completion, ns: float) -> None:
    """That it was OK and took so long, behind the descriptor's own way."""
    assert ended.status == "OK"
    assert ended.start_ns - ended.submitted_ns == about(COMMAND_NS)
    assert ended.done_ns - ended.start_ns == about(ns)


def bench(ranks: int = 4, mode: int = EXCLUSIVE, **arguments: Any) -> Bench:
    one = Bench(Fleet(1, ranks=ranks, **arguments))
    if mode != HOST:
        took(one.set_mode(mode), CLOSE_NS)
    return one


def change(one: Bench, before: dict[str, Any]) -> dict[str, Any]:
    """Counters that are not what they were."""
    return {name: value - before[name] for name, value in one.counters.items()
            if isinstance(value, (int, float)) and value != before[name]}  # fmt: skip
