"""Times the real op, expert by expert, with caches cold: what the cost core's tables are filled with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from trimoe.errors import FailureError
from trimoe.hardware.machine import detect_machine
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward
from trimoe.layer.source import source_of

__all__ = ["ACTIVE", "ExpertTimer"]

ACTIVE = 8  # experts of a call, so that threads share them as in a real one
_MAX_BYTES = 2 * 10**9
_PAGE = 4096


class ExpertTimer:
    """A layer of so many experts that a weight is out of the caches when its turn comes again.

    Args:
        weights: packed format.
        hidden: H.
        inter: I.

    Attributes:
        caches_cold: whether that many experts fitted; None where the size of the cache is unknown.

    Raises:
        InputError: a size out of range.
        FailureError: too little memory for the experts of two calls.
    """

    def __init__(self, weights: str, hidden: int, inter: int) -> None:
        machine = detect_machine()
        one = LayerSpec(1, hidden, inter, weights).layer_bytes
        cache_bytes = machine.last_level_cache_bytes
        room = min(_MAX_BYTES, machine.memory.available_bytes // 4) // one
        if room < 2 * ACTIVE:
            raise FailureError(
                expected=f"room for {2 * ACTIVE * one} bytes of experts",
                got=f"{machine.memory.available_bytes} bytes free, of which a quarter is used",
                hint="`--quick`, which measures smaller experts",
            )
        wanted = 2 * ACTIVE + math.ceil(2.5 * (cache_bytes or 0) / one)
        self._experts = min(wanted, room)
        self.caches_cold = None if cache_bytes is None else self._experts * one > 2 * cache_bytes
        self._dtype = torch.float32 if weights == "fp32" else torch.bfloat16
        self._hidden, self._next = hidden, 0
        spec = LayerSpec(self._experts, hidden, inter, weights)
        memory = _copies(_packed(weights, hidden, inter, self._dtype), self._experts)
        self._layer = ExpertLayer(spec, address=memory.data_ptr(), owner=memory)

    def samples_ns(
        self, counts: Sequence[int], rounds: int, advance: Callable[[], None]
    ) -> dict[int, list[float]]:
        """Nanoseconds of one expert of so many tokens among others of as many; a sample for every round.

        All counts take their turn in every round, so that what else the machine does meets them alike;
        `advance` is called after each. A first round is not counted.
        """
        inputs = {
            count: torch.randn(ACTIVE * count, self._hidden, dtype=torch.float32).to(self._dtype)
            for count in counts
        }
        samples: dict[int, list[float]] = {count: [] for count in counts}
        with torch.inference_mode():
            for turn in range(rounds + 1):
                for count, hidden in inputs.items():
                    ns = self._call_ns(hidden, count)
                    if turn:
                        samples[count].append(ns / ACTIVE)
                if turn:
                    advance()
        return samples

    def _call_ns(self, hidden: torch.Tensor, count: int) -> int:
        active = (torch.arange(ACTIVE) + self._next) % self._experts
        self._next = (self._next + ACTIVE) % self._experts
        ids = active.repeat_interleave(count)[:, None]
        weights = torch.ones(ACTIVE * count, 1)
        start_ns = time.perf_counter_ns()
        moe_forward(hidden, ids, weights, self._layer.handle)
        return time.perf_counter_ns() - start_ns

    def close(self) -> None:
        """Frees the experts."""
        self._layer.close()


def _packed(weights: str, hidden: int, inter: int, dtype: torch.dtype) -> torch.Tensor:
    """The packed bytes of one random expert."""
    generator = torch.Generator().manual_seed(7)
    gate, up, down = (
        torch.randn(shape, generator=generator).mul_(0.02).to(dtype)
        for shape in ((inter, hidden), (inter, hidden), (hidden, inter))
    )
    layer = ExpertLayer(LayerSpec(1, hidden, inter, weights))
    layer.pack_expert(0, source_of(gate), source_of(up), source_of(down))
    found = torch.frombuffer(bytearray(layer.memory), dtype=torch.uint8)
    layer.close()
    return found


def _copies(expert: torch.Tensor, count: int) -> torch.Tensor:
    """The same expert many times, at an address as packed files have it; packing each would take longer."""
    room = torch.empty(count * expert.numel() + _PAGE, dtype=torch.uint8)
    start = -room.data_ptr() % _PAGE
    copies = room[start : start + count * expert.numel()]
    copies.view(count, -1).copy_(expert.expand(count, -1))
    return copies
