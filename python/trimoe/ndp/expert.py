"""One expert FFN on one emulated DIMM-NDP, in time. A model: no such core exists to be measured.

The weights of every rank stream past the core burst by burst, through the simulated DRAM with its refreshes;
a burst is multiplied when it is there and the one before it is done. Where the buffer does not hold all
tokens, the weights are streamed once for every buffer full.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

from trimoe import _ndp
from trimoe.errors import InputError

__all__ = ["WEIGHT_BYTES", "ExpertTime", "expert_time"]

# Of one weight, scales included: int8 has one fp32 for each row, too little to count; int4 a bf16 for 128.
WEIGHT_BYTES = {"bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
_MAX_TRAFFIC_BYTES = 10**11  # some minutes of simulation
_MAX_BUFFER_KIB = 1 << 30


@dataclass(frozen=True)
class ExpertTime:
    """Nanoseconds of each phase, and of all; closed_form_ns: the same by formula.

    passes: times that the weights are streamed; weight_bytes: of one pass, on all ranks. dram_nj: reading,
    opening rows and refreshing, without background; channel_nj: activations and results off the DIMM. The
    core's own energy is unknown and in neither.
    """

    command_ns: float
    broadcast_ns: float
    gate_up_ns: float
    down_ns: float
    reduce_ns: float
    result_ns: float
    total_ns: float
    closed_form_ns: float
    dram_nj: float
    channel_nj: float
    passes: int
    weight_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@functools.lru_cache(maxsize=4096)
def expert_time(
    hidden: int,
    inter: int,
    tokens: int,
    *,
    spec: str = "4800B",
    dtype: str = "bf16",
    ranks: int = 4,
    tflops: float = 0.5,
    buffer_kib: int = 256,
) -> ExpertTime:
    """Simulates one expert; remembers what it has simulated.

    Args:
        hidden: H.
        inter: I, split over the ranks.
        tokens: T of this expert.
        spec: DRAM speed grade.
        dtype: of the weights, one of `WEIGHT_BYTES`; activations are bf16, sums fp32.
        ranks: package ranks whose data reaches the core apart.
        tflops: of the core, a multiply-add counts as two.
        buffer_kib: of the core.

    Raises:
        InputError: a size out of range, or a buffer that holds no token.
    """
    if dtype not in WEIGHT_BYTES:
        raise InputError(expected=f"dtype {', '.join(WEIGHT_BYTES)}", got=dtype, hint="bf16")
    if not 1 <= buffer_kib <= _MAX_BUFFER_KIB:
        raise InputError(expected="a buffer of 1 KiB to 1 TiB", got=f"{buffer_kib} KiB", hint="256")
    traffic_bytes = 3.0 * hidden * inter * WEIGHT_BYTES[dtype] * max(tokens, 1)
    if traffic_bytes > _MAX_TRAFFIC_BYTES:
        raise InputError(
            expected="an expert and tokens of at most 100 GB of weight traffic",
            got=f"{traffic_bytes / 1e9:.0f} GB",
            hint="fewer tokens",
        )
    try:
        found = _ndp.expert(spec, hidden, inter, tokens, WEIGHT_BYTES[dtype], ranks, tflops, buffer_kib << 10)
    except ValueError as error:
        raise InputError.from_native(error) from None
    return ExpertTime(**found)
