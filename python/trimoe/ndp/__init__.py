"""The emulator of DIMMs with near-data processing (DIMM-NDP). Needs no torch.

Today: the DRAM of one sub-channel and one expert FFN, in time, and the arithmetic of that FFN. What it is
checked against: `trimoe ndp validate`.
"""

from trimoe.ndp.core import expert_ffn
from trimoe.ndp.dram import Bandwidth, DramSpec, Latency, bandwidth, latency, patterns, spec, specs
from trimoe.ndp.expert import ExpertTime, expert_time
from trimoe.ndp.validate import Check, validate

__all__ = [
    "Bandwidth",
    "Check",
    "DramSpec",
    "ExpertTime",
    "Latency",
    "bandwidth",
    "expert_ffn",
    "expert_time",
    "latency",
    "patterns",
    "spec",
    "specs",
    "validate",
]
