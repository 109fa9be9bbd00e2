from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

class Planner:
    def __init__(
        self,
        resources: int,
        gpu: int,
        cpu: int,
        link: int,
        dimm: list[int],
        channel: list[int],
        *,
        with_cpu: bool,
        striped_on_dimm_up_to: int,
        greedy: bool,
        rounds: int,
        pairs: int,
        gain: float,
        search_up_to: int,
        search_nodes: int,
    ) -> None: ...
    def set_base(self, option: int, layout: int, row: Array) -> None: ...
    def set_tokens(self, tokens: int, ns: tuple[float, ...]) -> None: ...
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
