"""What a worker asks of an implementation, and which implementations there are. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from peers.cases import Case
    from peers.data import Weights

__all__ = ["PEERS", "Call", "Peer", "PeerSpec", "paths_of", "peers_for"]

# Runs one layer on the given weight copy and returns [T, H]; all that is timed.
Call = Callable[[int], Any]


class Peer(Protocol):
    """One implementation with its packed weights, `copies` times."""

    isa: str  # the instruction set it chose, as far as it says so
    bytes_per_weight: float  # packed, scales included
    copies: int

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call | None:
        """hidden [T, H] bf16, ids [T, K] int64, weights [T, K] fp32, converted to what the peer takes.

        None where the path cannot do so many tokens.
        """


# (case, source, kind, threads) -> Peer
Build = Callable[["Case", "Weights", str, int], Peer]


@dataclass(frozen=True)
class PeerSpec:
    """Where an implementation is and what it needs.

    module: in this package, with `build`; kind: the variant; format: of the weights; paths: ways to run the
    same weights, timed one by one; memory: bytes held per packed byte; threads: of its own pool, where it
    must not have as many as the others (0: as many).
    """

    module: str
    kind: str
    format: str
    paths: tuple[str, ...] = ()
    memory: float = 1.0
    threads: int = 0
    ours: bool = False


PEERS = {
    "trimoe_bf16": PeerSpec("trimoe_peer", "bf16", "bf16", ours=True),
    "trimoe_int8": PeerSpec("trimoe_peer", "int8", "int8", ours=True),
    "trimoe_int4": PeerSpec("trimoe_peer", "int4", "int4", ours=True),
    "sgl_bf16": PeerSpec("vllm", "sgl_bf16", "bf16"),
    "sgl_int8": PeerSpec("vllm", "sgl_int8", "int8"),
    "sgl_int4": PeerSpec("vllm", "sgl_int4", "int4"),
    "vllm_vec": PeerSpec("vllm", "vec", "bf16"),
    "vllm_amx": PeerSpec("vllm", "amx", "bf16"),
    "zen_bf16": PeerSpec("zentorch", "bf16", "bf16", memory=2.1),
    "zen_int8": PeerSpec("zentorch", "int8", "int8", memory=2.1),
    "zen_int4": PeerSpec("zentorch", "int4", "int4", memory=3.0),
    "torch": PeerSpec("torch_paths", "", "bf16", ("hf_eager", "hf_grouped_mm", "torch_linear")),
    "torch_gather": PeerSpec("torch_paths", "", "bf16", ("hf_batched_mm",)),
    "torch_packed": PeerSpec("torch_packed", "bf16", "bf16"),
    "torch_qlinear": PeerSpec("torch_packed", "int8", "int8"),
    "ggml_bf16": PeerSpec("ggml", "bf16", "bf16"),
    "ggml_q8_0": PeerSpec("ggml", "q8_0", "int8"),
    "ggml_q4_0": PeerSpec("ggml", "q4_0", "int4"),
    "kt_bf16": PeerSpec("kt", "bf16", "bf16"),
    "kt_int8": PeerSpec("kt", "int8", "int8"),
    "kt_int4": PeerSpec("kt", "int4", "int4"),
    "kt_gptq4": PeerSpec("kt", "gptq4", "int4"),
    "kt_raw4": PeerSpec("kt", "raw4", "int4"),
    # Its thread pool spins on one thread more than it computes with: see kt.py.
    "kt_bf16@1": PeerSpec("kt", "bf16", "bf16", threads=1),
    "kt_int8@1": PeerSpec("kt", "int8", "int8", threads=1),
    "kt_int4@1": PeerSpec("kt", "int4", "int4", threads=1),
    "kt_gptq4@1": PeerSpec("kt", "gptq4", "int4", threads=1),
}
# Measured only when named: another peer does the same faster everywhere, or it is wrong on a case.
_BY_NAME_ONLY = {"torch_gather", "vllm_vec", "kt_raw4", "kt_bf16", "kt_int8", "kt_int4", "kt_gptq4"}


def peers_for(weight_format: str) -> list[str]:
    """Names of the peers measured by default, trimoe first."""
    names = [
        name for name, spec in PEERS.items() if spec.format == weight_format and name not in _BY_NAME_ONLY
    ]
    return sorted(names, key=lambda name: not PEERS[name].ours)


def paths_of(name: str) -> tuple[str, ...]:
    """The ways a peer runs, each a row of the table: by default one, named like the peer."""
    return PEERS[name].paths or (name,)
