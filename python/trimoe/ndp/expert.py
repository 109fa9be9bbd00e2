"""One expert FFN on one emulated DIMM-NDP, in time. A model: no such core exists to be measured.

The weights of every rank stream past the core burst by burst, through the simulated DRAM with its refreshes;
a burst is multiplied when it is there and the one before it is done. Where the buffer does not hold all
tokens, the weights are streamed once for every buffer full. Of a striped expert the DIMM owns an equal part
and gets the others over the DIMM link meanwhile, in every pass again. Of a rank that the host reads
meanwhile, the core keeps a share of the stream; all ranks do equal parts, so that all wait for it.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

from trimoe import _ndp
from trimoe.errors import InputError, nearest
from trimoe.ndp.sharing import contention

__all__ = [
    "LAYOUTS",
    "WEIGHT_BYTES",
    "ExpertTime",
    "RelayoutTime",
    "expert_time",
    "relayout_time",
    "ridge_tokens",
]

# Of one weight, scales included: int8 has one fp32 for each row, too little to count; int4 a bf16 for 128.
WEIGHT_BYTES = {"bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
LAYOUTS = ("localized", "striped")
_MAX_TRAFFIC_BYTES = 10**11  # some minutes of simulation
_MAX_BUFFER_KIB = 1 << 30


@dataclass(frozen=True)
class ExpertTime:
    """Nanoseconds of each phase, and of all; closed_form_ns: the same by formula.

    gather_ns: what waiting for the link adds to gate_up_ns and down_ns; 0 for a localized expert. passes:
    times that the weights are streamed; weight_bytes: of one pass, on all ranks of this DIMM; link_bytes: of
    one pass, from other DIMMs. dram_nj: reading, opening rows and refreshing, on all DIMMs, without
    background; channel_nj: activations and results off the DIMM; link_nj: from DIMM to DIMM. The core's own
    energy is unknown and in none. stream_share: what the host leaves of the stream of the rank that it reads.
    """

    command_ns: float
    broadcast_ns: float
    gate_up_ns: float
    down_ns: float
    gather_ns: float
    reduce_ns: float
    result_ns: float
    total_ns: float
    closed_form_ns: float
    dram_nj: float
    channel_nj: float
    link_nj: float
    passes: int
    weight_bytes: int
    link_bytes: int
    stream_share: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RelayoutTime:
    """Moving an expert's weights, by link or by the host; *_closed_form_ns: the same by formula.

    link_bytes: what crosses the link; by the host, all of weight_bytes is read and written. link_nj and
    channel_nj: of the link and of the channels alone, without DRAM.
    """

    weight_bytes: int
    link_bytes: int
    link_ns: float
    link_closed_form_ns: float
    host_ns: float
    host_closed_form_ns: float
    link_nj: float
    channel_nj: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def weight_bytes_each(dtype: str) -> float:
    """Of one weight of that type; InputError for one that `WEIGHT_BYTES` lacks."""
    if dtype not in WEIGHT_BYTES:
        raise InputError(
            expected=f"dtype {', '.join(WEIGHT_BYTES)}", got=dtype, hint=nearest(dtype, WEIGHT_BYTES)
        )
    return WEIGHT_BYTES[dtype]


def buffer_bytes(buffer_kib: int) -> int:
    """Of a core's buffer; InputError beyond 1 KiB to 1 TiB."""
    if not 1 <= buffer_kib <= _MAX_BUFFER_KIB:
        raise InputError(expected="a buffer of 1 KiB to 1 TiB", got=f"{buffer_kib} KiB", hint="256")
    return buffer_kib << 10


def check_traffic(hidden: int, inter: int, tokens: int, dtype: str) -> None:
    """InputError where the weights, once for every token, are more than can be simulated in minutes."""
    traffic_bytes = 3.0 * hidden * inter * WEIGHT_BYTES[dtype] * max(tokens, 1)
    if traffic_bytes > _MAX_TRAFFIC_BYTES:
        raise InputError(
            expected="an expert and tokens of at most 100 GB of weight traffic",
            got=f"{traffic_bytes / 1e9:.0f} GB",
            hint="fewer tokens",
        )


@functools.lru_cache(maxsize=1024)
def stream_shares(spec: str, mode: str, host_gbps: float) -> tuple[float, float]:
    """What the host leaves of one rank's stream: simulated, and by formula."""
    closed_form = _ndp.closed_form_share(spec, mode, host_gbps)
    found = contention(spec, mode, ranks=1, host_gbps=host_gbps).in_step_share if host_gbps else 1.0
    return min(found, 1.0), closed_form


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
    layout: str = "localized",
    dimms: int = 16,
    link_gbps: float = 25.0,
    mode: str = "exclusive",
    host_gbps: float = 0.0,
) -> ExpertTime:
    """Simulates one expert; what has been simulated before is looked up natively.

    Args:
        hidden: H.
        inter: I, split over the ranks.
        tokens: T of this expert.
        spec: DRAM speed grade.
        dtype: of the weights, one of `WEIGHT_BYTES`; activations are bf16, sums fp32.
        ranks: package ranks whose data reaches the core apart.
        tflops: of the core, a multiply-add counts as two.
        buffer_kib: of the core.
        layout: "localized", all weights on this DIMM, or "striped", an equal part on each of `dimms`.
        dimms: that a striped expert lies on.
        link_gbps: from all other DIMMs together into this one.
        mode: how host and core share a rank, "exclusive" in turns or "concurrent" at once.
        host_gbps: that the host reads of one rank meanwhile, less than its bandwidth.

    Raises:
        InputError: a size out of range, a buffer that holds no token, or mode "host", in which the core may
            not run.
    """
    each = weight_bytes_each(dtype)
    if layout not in LAYOUTS:
        raise InputError(
            expected=f"a layout out of {', '.join(LAYOUTS)}", got=layout, hint=nearest(layout, LAYOUTS)
        )
    check_traffic(hidden, inter, tokens, dtype)
    share, closed_form_share = stream_shares(spec, mode, host_gbps)
    found = _ndp.expert(
        spec,
        hidden,
        inter,
        tokens,
        weight_bytes_each=each,
        ranks=ranks,
        tflops=tflops,
        buffer_bytes=buffer_bytes(buffer_kib),
        striped_over=dimms if layout == "striped" else 1,
        link_gbps=link_gbps,
        stream_share=share,
        closed_form_share=closed_form_share,
    )
    return ExpertTime(**found, stream_share=share)


def relayout_time(
    hidden: int,
    inter: int,
    *,
    spec: str = "4800B",
    dtype: str = "bf16",
    ranks: int = 4,
    dimms: int = 16,
    link_gbps: float = 25.0,
    migrate: bool = False,
) -> RelayoutTime:
    """Simulates localized to striped over `dimms`, or back; or the move to one other DIMM (`migrate`).

    Raises:
        InputError: a size out of range.
    """
    each = weight_bytes_each(dtype)
    check_traffic(hidden, inter, 1, dtype)
    found = _ndp.relayout(
        spec,
        hidden,
        inter,
        weight_bytes_each=each,
        ranks=ranks,
        dimms=dimms,
        link_gbps=link_gbps,
        migrate=migrate,
    )
    return RelayoutTime(**found)


def ridge_tokens(*, spec: str = "4800B", dtype: str = "bf16", ranks: int = 4, tflops: float = 0.5) -> float:
    """Tokens of one pass from which the core is slower than the stream, by formula (L*)."""
    return _ndp.ridge_tokens(spec, weight_bytes_each=weight_bytes_each(dtype), ranks=ranks, tflops=tflops)
