"""EXPERT_FFN in time against its closed form, over the experts of four models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from trimoe.ndp.checks.check import Check
from trimoe.ndp.checks.dram import stream_gbps
from trimoe.ndp.dram import DramSpec
from trimoe.ndp.expert import LAYOUTS, WEIGHT_BYTES, expert_time

__all__ = ["MODELS", "check_expert", "closed_form_ns"]

# H and I of an expert: DeepSeek-V2, Qwen3-235B-A22B, GLM-4.5-Air, Qwen3-30B-A3B.
MODELS = ((5120, 1536), (4096, 1536), (4096, 1408), (2048, 768))
_TOKENS = (1, 4, 32)
_RANKS = (1, 2, 4)
_DIMMS = 16
_SUB_CHANNELS = 2
# The defaults of `expert_time`, and constants of the core that docs/ndp.md has.
_MACS_PER_NS, _BUFFER_BYTES, _LINK_GBPS, _ADDS_PER_NS = 250.0, 256 << 10, 25.0, 256.0
_PATH_CLOCKS = 2 + 8 + 7  # registering driver, data buffers, decoder


def closed_form_ns(
    spec: DramSpec, hidden: int, inter: int, tokens: int, *, dtype: str, ranks: int, layout: str
) -> float:
    """t_cmd + activations + max(passes W / B, MACs / F, link) + reduction + results, worked out by hand."""
    t, weights = spec.timing_clocks, 3 * hidden * inter
    # Of each token the buffer holds its input (bf16), the sums of gate and up and a partial result (fp32).
    token_bytes = hidden * 2 + 2 * math.ceil(inter / ranks) * 4 + hidden * 4
    passes = math.ceil(tokens / (_BUFFER_BYTES // token_bytes))
    traffic = passes * weights * WEIGHT_BYTES[dtype]
    own = traffic / _DIMMS if layout == "striped" else traffic
    command_ns = (t["nCWL"] + t["nBL"] + _PATH_CLOCKS) * spec.clock_ns
    first_ns = 0.0
    if own < traffic:  # the first row comes over the link
        row_bytes = spec.bursts_per_row * spec.burst_bytes
        first_ns = command_ns + (t["nRCD"] + t["nCL"] + t["nBL"]) * spec.clock_ns + row_bytes / _LINK_GBPS
    slowest_ns = max(
        own / (stream_gbps(spec) * _SUB_CHANNELS * ranks),
        tokens * weights / _MACS_PER_NS,
        (traffic - own) / _LINK_GBPS,
    )
    channel_ns = tokens * hidden * 2 / (spec.peak_gbps * _SUB_CHANNELS)
    return command_ns + first_ns + slowest_ns + 2 * channel_ns + tokens * hidden * ranks / _ADDS_PER_NS


def check_expert(spec: DramSpec) -> Iterator[Check]:
    """The largest deviation of the sweep; and what is streamed beyond the weights, a burst at most."""
    cases = list(product(MODELS, _TOKENS, _RANKS, WEIGHT_BYTES, LAYOUTS))
    deviations, bursts = [0.0], [0.0]
    for (hidden, inter), tokens, ranks, dtype, layout in cases:
        time = expert_time(
            hidden, inter, tokens, spec=spec.name, dtype=dtype, ranks=ranks, layout=layout, dimms=_DIMMS
        )
        expected = closed_form_ns(
            spec, hidden, inter, tokens, dtype=dtype, ranks=ranks, layout=layout
        )  # fmt: skip
        deviations.append(100 * (time.total_ns / expected - 1))
        dimms = _DIMMS if layout == "striped" else 1
        streams = 3 * ranks * _SUB_CHANNELS  # of each matrix its own, on every sub-channel
        beyond = time.weight_bytes - 3 * hidden * inter * WEIGHT_BYTES[dtype] / dimms
        bursts.append(beyond / streams / spec.burst_bytes)
    what = f"EXPERT_FFN and its closed form, worst of {len(cases)}"
    yield Check(spec.name, what, "%", max(deviations, key=abs), 0, 3)
    what = "EXPERT_FFN: read beyond the weights of a stream, worst"
    yield Check(spec.name, what, "bursts", max(bursts, key=lambda one: abs(one - 0.5)), 0.5, 0.5)
