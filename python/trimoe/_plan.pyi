from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

class Clock:
    def __init__(self, resources: int, keep: bool) -> None: ...
    def extend(self, tasks: Sequence[tuple[Sequence[tuple[int, float]], Sequence[int], int]]) -> int: ...
    def run(self, until: int) -> bool: ...
    def ended(self, task: int) -> bool: ...
    def busy_until_ns(self, now_ns: float) -> list[float]: ...
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
        resources: int,
        gpu: int,
        cpu: int,
        dimm: list[int],
        channel: list[int],
        *,
        with_cpu: bool,
        greedy: bool,
        rounds: int,
        pairs: int,
        gain: float,
        search_up_to: int,
        search_nodes: int,
    ) -> None: ...
    def set_base(self, option: int, layout: int, row: Array) -> None: ...
    def set_tokens(
        self,
        tokens: int,
        *,
        gpu: float,
        cpu_striped: float,
        cpu_localized: float,
        dimm: float,
        channel: float,
    ) -> None: ...
    def knows(self, tokens: int) -> bool: ...
    def decide(
        self, counts: Array, resident: Array, layout: Array
    ) -> tuple[npt.NDArray[np.int32], tuple[int, ...], tuple[int, ...]] | None: ...
    @property
    def makespan_ns(self) -> float: ...
    @property
    def rounds(self) -> int: ...
    @property
    def loads_ns(self) -> npt.NDArray[np.float32]: ...
