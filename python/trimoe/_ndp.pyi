from typing import Any

class Device:
    def __init__(self, spec: str, ranks: int = 1) -> None: ...
    def earliest(self, command: str, rank: int = 0, group: int = 0, bank: int = 0) -> int: ...
    def issue(
        self, command: str, at: int, rank: int = 0, group: int = 0, bank: int = 0, row: int = 0
    ) -> None: ...

class RefreshLedger:
    def __init__(self, spec: str, first_due: int = 0) -> None: ...
    @property
    def owner(self) -> str: ...
    @property
    def next_due(self) -> int: ...
    @property
    def transfers(self) -> int: ...
    @property
    def largest_debt(self) -> int: ...
    def debt(self, clock: int) -> int: ...
    def issue(self, by: str, clock: int) -> None: ...
    def transfer(self, to: str, clock: int) -> None: ...
    def issued(self, owner: str) -> int: ...

def specs() -> list[dict[str, Any]]: ...
def patterns() -> list[str]: ...
def bandwidth(
    spec: str,
    pattern: str,
    read_pct: int,
    ranks: int,
    bursts: int,
    refresh: bool,
    refresh_apart: int,
    seed: int,
) -> dict[str, Any]: ...
def expert(
    spec: str,
    hidden: int,
    inter: int,
    tokens: int,
    weight_bytes_each: float,
    ranks: int,
    tflops: float,
    buffer_bytes: int,
    striped_over: int = 1,
    link_gbps: float = 25.0,
    stream_share: float = 1.0,
    closed_form_share: float = 1.0,
    remember: bool = True,
) -> dict[str, Any]: ...
def relayout(
    spec: str,
    hidden: int,
    inter: int,
    weight_bytes_each: float,
    ranks: int,
    dimms: int,
    link_gbps: float,
    migrate: bool,
) -> dict[str, Any]: ...
def step(
    spec: str,
    hidden: int,
    inter: int,
    weight_bytes_each: float,
    ranks: int,
    tflops: float,
    buffer_bytes: int,
    layers: int,
    tokens: list[int],
    home: list[int],
    dimms: int,
    dimms_per_channel: int,
) -> dict[str, Any]: ...
def weight_stream(
    spec: str, matrix_bursts: int, passes: int
) -> list[tuple[list[int], list[int], tuple[int, int, int]]]: ...
def keep_streams(max_bytes: int) -> int: ...
def closed_form_share(spec: str, mode: str, host_gbps: float) -> float: ...
def ridge_tokens(spec: str, weight_bytes_each: float, ranks: int, tflops: float) -> float: ...
def idle_latency_ns(spec: str) -> tuple[float, float]: ...
def loaded_latency(
    spec: str, background_gbps: float, probes: int, refresh: bool, seed: int
) -> tuple[float, float]: ...
def sharing(
    spec: str,
    mode: str,
    pattern: str,
    ranks: int,
    host_gbps: float,
    write_pct: int,
    max_window_ns: float,
    duration_ns: float,
    row_hit_cap: int,
    ndp_window: int,
    host_outstanding: int,
    postpone: int,
    seed: int,
    traced: bool = False,
) -> dict[str, Any]: ...
