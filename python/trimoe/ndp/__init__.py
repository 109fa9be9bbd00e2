"""The emulator of DIMMs with near-data processing (DIMM-NDP). Needs no torch.

The DRAM of one sub-channel (`bandwidth`, `latency`), one expert FFN in time (`expert_time`), host and NDP on
one DIMM (`contention`), DIMMs that do it all by command (`Fleet`). Checked by `validate`.
"""

from trimoe.errors import NdpError
from trimoe.ndp.core import expert_ffn
from trimoe.ndp.descriptor import Descriptor, Flag, Opcode, expert_config
from trimoe.ndp.dram import Bandwidth, DramSpec, Latency, bandwidth, latency, patterns, spec, specs
from trimoe.ndp.expert import ExpertTime, RelayoutTime, expert_time, relayout_time, ridge_tokens
from trimoe.ndp.fleet import LAYOUTS, Completion, Fleet, Location
from trimoe.ndp.sharing import SHARING_MODES, Contention, contention, contention_sweep
from trimoe.ndp.step import StepTime, draw_counts, step_time
from trimoe.ndp.sweep import ExpertSweep, sweep_expert
from trimoe.ndp.trace import Trace, trace
from trimoe.ndp.validate import Check, validate, validation_steps

__all__ = [
    "LAYOUTS",
    "SHARING_MODES",
    "Bandwidth",
    "Check",
    "Completion",
    "Contention",
    "Descriptor",
    "DramSpec",
    "ExpertSweep",
    "ExpertTime",
    "Flag",
    "Fleet",
    "Latency",
    "Location",
    "NdpError",
    "Opcode",
    "RelayoutTime",
    "StepTime",
    "Trace",
    "bandwidth",
    "contention",
    "contention_sweep",
    "draw_counts",
    "expert_config",
    "expert_ffn",
    "expert_time",
    "latency",
    "patterns",
    "relayout_time",
    "ridge_tokens",
    "spec",
    "specs",
    "step_time",
    "sweep_expert",
    "trace",
    "validate",
    "validation_steps",
]
