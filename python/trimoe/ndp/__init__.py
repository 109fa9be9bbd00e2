"""The emulator of DIMMs with near-data processing (DIMM-NDP). Needs no torch.

Today: the DRAM of one sub-channel and one expert FFN, in time. What it is checked against:
`trimoe ndp validate`.
"""

from trimoe.ndp.dram import Bandwidth, DramSpec, Latency, bandwidth, latency, patterns, spec, specs
from trimoe.ndp.expert import ExpertTime, expert_time
from trimoe.ndp.sharing import SHARING_MODES, Contention, contention, contention_sweep
from trimoe.ndp.validate import Check, validate

__all__ = [
    "SHARING_MODES",
    "Bandwidth",
    "Check",
    "Contention",
    "DramSpec",
    "ExpertTime",
    "Latency",
    "bandwidth",
    "contention",
    "contention_sweep",
    "expert_time",
    "latency",
    "patterns",
    "spec",
    "specs",
    "validate",
]
