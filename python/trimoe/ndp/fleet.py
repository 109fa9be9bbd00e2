"""Emulated DIMM-NDPs: experts lie on them, run on them, and move between them; time is emulated.

The arithmetic is done by the host, on the bytes that lie in the DIMMs' address space and in the order of the
NDP core (`trimoe.ndp.core`); what takes a DIMM how long is the emulator's to say. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp.descriptor import Descriptor
from trimoe.ndp.expert import stream_shares

__all__ = ["LAYOUTS", "Completion", "Fleet", "Location"]

# Whole on one DIMM; its bytes spread over all; cut along I, so that every DIMM computes a part.
LAYOUTS = ("localized", "striped", "split")
# Expert, rows of bf16 [T, H], room for fp32 [T, H]; then, where a striped expert is to run elsewhere than at
# its slot, on which DIMM.
Job: TypeAlias = "tuple[int, Any, Any] | tuple[int, Any, Any, int]"


@dataclass(frozen=True)
class Completion:
    """How a command ended; nanoseconds of emulated time."""

    tag: int
    opcode: int
    status: str
    submitted_ns: float
    start_ns: float
    done_ns: float


@dataclass(frozen=True)
class Location:
    """Where an expert lies: the DIMM that has its slot (of a split one the first), and one of `LAYOUTS`."""

    dimm: int
    slot: int
    layout: str
    nbytes: int


class Fleet:
    """The DIMMs of a machine.

    Args:
        dimms: how many.
        spec: DRAM speed grade.
        ranks: package ranks of a DIMM, 1, 2, 4 or 8.
        tflops: of a core.
        buffer_kib: of each rank's part of a core.
        link_gbps: from DIMM to DIMM.
        timeout_us: after which a command that does not end is given up.
        ring: descriptors that wait in a DIMM.
        mode: of the ranks while experts run, "exclusive" or "concurrent"; host_gbps: what the host reads from
            each DIMM meanwhile, which slows the streams as `contention` finds.

    Raises:
        InputError: an argument out of range, everywhere; NdpError: a DIMM failed; FailureError: too few of
            them answer.
    """

    def __init__(
        self,
        dimms: int = 16,
        *,
        spec: str = "4800B",
        ranks: int = 4,
        tflops: float = 0.5,
        buffer_kib: int = 256,
        link_gbps: float = 25.0,
        timeout_us: float = 1000.0,
        ring: int = 64,
        mode: str = "exclusive",
        host_gbps: float = 0.0,
    ) -> None:
        self.dimms = dimms
        share, _ = stream_shares(spec, mode, host_gbps)
        self.native = _ndp.Fleet(
            dimms, spec, ranks, tflops, buffer_kib << 10, link_gbps, timeout_us * 1e3, ring, mode, share
        )

    # Experts.

    def place(
        self,
        expert: int,
        data: memoryview | bytes,
        dimm: int,
        *,
        hidden: int,
        inter: int,
        number: str = "bf16",
        group: int = 0,
        activation: str = "silu",
        gated: bool = True,
        bias: bool = False,
        alpha: float = 1.702,
        limit: float = 7.0,
        layout: str = "localized",
    ) -> None:
        """Gives an expert's packed bytes (`ExpertLayer.memory`) to a DIMM, or spread over all that answer.

        The bytes stay where they are, but for a split expert's, which are copied. expert: any number that
        names it from then on. number: "bf16", "fp16" (packed as bf16 is), "int8" or "int4" with its group.
        dimm: that has it, or its slot.
        """
        shape = _ndp.CoreShape(hidden, inter, number, group, activation, gated, bias, alpha, limit)
        self.native.place(expert, shape, data, dimm, layout)

    def remove(self, expert: int) -> None:
        """Takes an expert from its DIMM."""
        self.native.remove(expert)

    def where(self, expert: int) -> Location:
        """Where an expert lies now."""
        return Location(*self.native.where(expert))

    def bytes_of(self, expert: int) -> bytes:
        """Its packed bytes, as they lie on the DIMMs now."""
        return self.native.bytes_of(expert)

    def run(self, jobs: Iterable[Job], *, threads: int = 1) -> float:
        """Runs experts where they lie, the DIMMs at once; returns the emulated nanoseconds.

        A DIMM gathers a striped expert over the link; of a split one every DIMM computes its part.
        """
        return self.native.run([(*job, -1)[:4] for job in jobs], threads)

    def migrate(self, expert: int, to: int) -> float:
        """Moves an expert to another DIMM over the link; emulated ns. It stays where it was on NdpError."""
        return self.native.migrate(expert, to)

    def relayout(self, expert: int, layout: str, *, dimm: int = -1) -> float:
        """Lays an expert out anew, one of `LAYOUTS`; emulated ns. As `migrate`.

        dimm: that has it afterwards, or its slot; -1, that has the slot now.
        """
        return self.native.relayout(expert, layout, dimm)

    def evacuate(self, dimm: int) -> int:
        """Has the host copy all experts of a DIMM to the others, in turns; how many they were."""
        return self.native.evacuate(dimm)

    def reset(self, dimm: int) -> None:
        """Brings a DIMM that hangs back, with its experts; NdpError for one that is dead."""
        self.native.reset(dimm)

    def failures(self) -> dict[int, str]:
        """DIMMs whose last run failed, and the code; `reset` and a run that goes well clear it."""
        return self.native.failures()

    def stats(self) -> dict[str, Any]:
        """What the fleet did since the start; `dimms`: the counters of each.

        busy_ns: emulated, of each step its slowest DIMM; host_ns: real, what the host took for the same.
        """
        return {
            **self.native.fleet_counters(),
            "dimms": [self.native.counters(dimm) for dimm in range(self.dimms)],
        }

    # One DIMM, by descriptors.

    def submit(
        self, dimm: int, descriptor: Descriptor | bytes, *, payload: Any = None, out: Any = None
    ) -> str:
        """Writes a descriptor: "OK", or "QUEUE_FULL" when the ring has no room.

        payload and out: buffers for what crosses the channel; they must stay until the command is complete.
        STATUS, IRQ, ABORT and RESET are complete at once, and the result is theirs.
        """
        raw = descriptor.pack() if isinstance(descriptor, Descriptor) else descriptor
        return self.native.submit(dimm, raw, payload, out)

    def advance(self, dimm: int, to_ns: float | None = None) -> float:
        """Moves a DIMM's time on, or (None) to the end of all that it was given; returns its time."""
        if to_ns is None:
            return self.native.run_dimm(dimm)
        return self.native.advance(dimm, to_ns)

    def poll(self, dimm: int) -> Completion | None:
        """The oldest completion that was not polled yet."""
        ended = self.native.poll(dimm)
        return None if ended is None else Completion(**ended)

    def interrupt(self, dimm: int) -> bool:
        """Whether a completion with the IRQ flag waits to be acknowledged."""
        return self.native.interrupt(dimm)

    def allocate(self, dimm: int, nbytes: int) -> int:
        """The address of so many zeroed bytes in a DIMM; `write` and `read` are the host's access."""
        return self.native.allocate(dimm, nbytes)

    def write(self, dimm: int, address: int, data: Any) -> None:
        """Puts bytes into memory that was allocated."""
        self.native.write(dimm, address, data)

    def read(self, dimm: int, address: int, nbytes: int) -> bytes:
        """The bytes there."""
        return self.native.read(dimm, address, nbytes)

    # What goes wrong, on purpose.

    def inject(self, dimm: int, command: int, fault: str, at: float = 0.5) -> None:
        """Has a fault befall a command: "corrupt", "timeout", "death" or "ecc".

        command: its number in the order in which the DIMM starts what its ring has, from 0; `stats` says how
        many it has `started`. at: share of the command's time that has passed by then.
        """
        self.native.inject(dimm, command, fault, at)

    def seed_faults(
        self, seed: int, *, corrupt: float = 0, timeout: float = 0, death: float = 0, ecc: float = 0
    ) -> None:
        """Draws faults for all DIMMs from a seed, 0 to 2^32 - 1; the rates are per command."""
        if not 0 <= seed < 1 << 32:
            raise InputError(expected="a seed of 0 to 2^32 - 1", got=str(seed), hint="0")
        for dimm in range(self.dimms):
            self.native.seed_faults(dimm, seed * self.dimms + dimm, corrupt, timeout, death, ecc)

    def kill(self, dimm: int, at_ns: float = 0.0) -> None:
        """From that time on the DIMM does not answer; its memory can still be read by the host."""
        self.native.kill(dimm, at_ns)

    def poison(self, dimm: int, address: int) -> None:
        """Has memory at an address be uncorrectable until what lies there has left."""
        self.native.poison(dimm, address)
