"""Who besides the CPU runs experts of a layer of the op, who decides, and what calls took.

layer: the op's handle (`ExpertLayer.handle`); codes: those of `trimoe.domains`. A call that is under way
keeps what it began with. InputError for a handle that is closed (but of `detach`, which does nothing then)
and for arguments that make no sense.

A call of the op with `plan=None` asks the layer's policy, and without one the CPU runs all. What fails
natively is the op's RuntimeError: of a DIMM with a `trimoe.errors.NdpError` as its cause. What a Python
policy raises reaches the caller of the op as it is; but of the bare `torch.ops.trimoe.moe_forward` in
inference mode, as the cause of its RuntimeError.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from trimoe import _ndp

# counts [E] int64, the rows of each expert; tokens T; topk K -> the domain of each expert, [E] int32.
Policy = Callable[[npt.NDArray[np.int64], int, int], npt.NDArray[np.int32]]

class Took(TypedDict):
    """What one code of a plan did in a call."""

    code: int
    experts: int
    rows: int  # (token, expert) pairs
    kind: str  # "measured", "emulated" or "modelled"
    took_ns: float  # of the CPU: its kernels, with what they computed for others; of a stand-in: 0
    host_ns: int  # real, beside the CPU's kernels: what emulating it took

class Record(TypedDict):
    """One call of the op. Nanoseconds of the monotonic clock (`time.monotonic_ns`)."""

    layer: int
    begun_ns: int  # when, on that clock; the others are since then, or for how long
    plan_ns: int  # that the policy took
    submitted_ns: int  # until the first work was submitted, to whomever, the policy included
    took_ns: int  # until the result was there
    tokens: int
    host_rows: int  # that the CPU's kernels computed, those of other domains included
    domains: list[Took]  # those with experts, in order of code

class Recorder:
    """Keeps what the calls of any number of layers took; the oldest goes where there is no room."""

    def __init__(self, capacity: int = 65536) -> None: ...
    def drain(self) -> tuple[list[Record], int]:
        """All since the last time, the oldest first, and how many had to go."""

# Several fleets or stand-ins may be attached to a layer, as long as no code has two.
def attach_fleet(layer: int, fleet: _ndp.Fleet, arithmetic: str) -> None:
    """SPLIT and FIRST_DIMM + d of every DIMM; experts are the fleet's as `_ndp.expert_key` calls them.

    arithmetic: "host", the CPU's kernels on the bytes in the DIMMs; "core", the emulated core's.
    """

def attach_stand_in(layer: int, codes: Sequence[int]) -> None:
    """Domains that this machine lacks: the CPU's kernels on the layer's own bytes, no time of their own."""

def codes(layer: int) -> list[int]:
    """Those that a plan may use, in order; IDLE, which needs no domain, is not among them, the CPU is."""

def detach(layer: int, code: int | None = None) -> None:
    """The domain that has the code, with all its codes; or all domains. Policy and recorder stay."""

def set_policy(layer: int, policy: npt.NDArray[np.int32] | Sequence[int] | Policy | None) -> None:
    """A plan for every call, [E], or who is asked by every call without a plan; None: the CPU alone."""

def set_recorder(layer: int, recorder: Recorder | None) -> None: ...
