"""The emulator of DIMMs with near-data processing (DIMM-NDP). Needs no torch.

Today: the DRAM of one sub-channel, one expert FFN and a decode step's, in time. What it is checked against:
`trimoe ndp validate`.
"""

from trimoe.ndp.dram import Bandwidth, DramSpec, Latency, bandwidth, latency, patterns, spec, specs
from trimoe.ndp.expert import ExpertTime, RelayoutTime, expert_time, relayout_time, ridge_tokens
from trimoe.ndp.sharing import SHARING_MODES, Contention, contention, contention_sweep
from trimoe.ndp.step import StepTime, draw_counts, step_time
from trimoe.ndp.sweep import ExpertSweep, sweep_expert
from trimoe.ndp.validate import Check, validate

__all__ = [
    "SHARING_MODES",
    "Bandwidth",
    "Check",
    "Contention",
    "DramSpec",
    "ExpertSweep",
    "ExpertTime",
    "Latency",
    "RelayoutTime",
    "StepTime",
    "bandwidth",
    "contention",
    "contention_sweep",
    "draw_counts",
    "expert_time",
    "latency",
    "patterns",
    "relayout_time",
    "ridge_tokens",
    "spec",
    "specs",
    "step_time",
    "sweep_expert",
    "validate",
]
