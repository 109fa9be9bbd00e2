from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Bools, Floats, Ints

SPLIT: int
IDLE: int
CPU: int
GPU: int
FIRST_DIMM: int
STRIPED: int

class Clock:
    def __init__(self, resources: int, keep: bool) -> None: ...
    def extend(self, tasks: Sequence[tuple[Floats, Sequence[int], int]]) -> int: ...
    def run(self, until: int | None) -> bool: ...
    def cancel(self, task: int) -> bool: ...
    def set_priority(self, task: int, priority: int) -> None: ...
    def ended(self, task: int) -> bool: ...
    def busy_until_ns(self, now_ns: float) -> list[float]: ...
    @property
    def free_at_ns(self) -> list[float]: ...
    @property
    def now_ns(self) -> float: ...
    @property
    def behind_ns(self) -> float: ...
    @property
    def start_ns(self) -> list[float]: ...
    @property
    def end_ns(self) -> list[float]: ...
    @property
    def busy_ns(self) -> list[float]: ...
    @property
    def intervals(self) -> list[list[tuple[float, float, int]]]: ...

class Planner:
    def __init__(
        self,
        *,
        resources: int,
        gpu: int,
        cpu: int,
        link: int,
        dimm: list[int],
        channel: list[int],
        with_cpu: bool,
        striped_on_dimm_up_to: int,
        greedy: bool,
        rounds: int,
        pairs: int,
        gain: float,
        search_up_to: int,
        search_nodes: int,
    ) -> None: ...
    def set_base(self, domain: int, layout: int, load: Floats) -> None: ...
    def set_tokens(
        self,
        tokens: int,
        *,
        gpu_ns: float,
        cpu_striped_ns: float,
        cpu_localized_ns: float,
        dimm_ns: float,
        channel_ns: float,
        striped_dimm_ns: float,
        striped_channel_ns: float,
        link_ns: float,
        other_dimm_ns: float,
    ) -> None: ...
    def knows(self, tokens: int) -> bool: ...
    def decide(
        self, counts: Ints, resident: Bools, layout: Ints
    ) -> tuple[npt.NDArray[np.int32], tuple[int, ...], tuple[int, ...]] | None: ...
    @property
    def makespan_ns(self) -> float: ...
    @property
    def rounds(self) -> int: ...
    @property
    def loads_ns(self) -> npt.NDArray[np.float32]: ...
