from typing import Any

from trimoe.expert_layer import Source

LAYOUT_VERSION: int

class LayerShape:
    def __init__(
        self,
        experts: int,
        hidden: int,
        inter: int,
        weights: str,
        activation: str = "silu",
        gated: bool = True,
        bias: bool = False,
        alpha: float = 1.702,
        limit: float = 7.0,
    ) -> None: ...
    @property
    def expert_bytes(self) -> int: ...
    @property
    def layer_bytes(self) -> int: ...

def features() -> dict[str, Any]: ...
def kernel_table() -> list[dict[str, Any]]: ...
def selected_isa() -> str: ...
def probe_bandwidth_gbps(bytes: int, repeats: int, threads: int) -> list[float]: ...
def probe_gflops(weights: str, seconds: float, repeats: int, threads: int) -> list[float]: ...
def create_layer(shape: LayerShape) -> int: ...
def map_layer(shape: LayerShape, address: int) -> int: ...
def pack_expert(
    handle: int,
    expert: int,
    gate: Source | None,
    up: Source,
    down: Source,
    gate_bias: Source | None = None,
    up_bias: Source | None = None,
    down_bias: Source | None = None,
) -> None: ...
def run_entry(
    isa: str,
    handle: int,
    tokens: int,
    topk: int,
    hidden: Source,
    ids: Source,
    weights: Source,
    out: int,
    threads: int = 1,
) -> None: ...
def layer_memory(handle: int) -> memoryview: ...
def destroy_layer(handle: int) -> None: ...
def layer_stats(handle: int) -> dict[str, Any]: ...
def reset_stats(handle: int) -> None: ...
