"""trimoe's own op on its packed store."""

from __future__ import annotations

import torch

from peers.cases import GROUP, Case
from peers.data import Weights
from peers.peer import Call
from trimoe.hardware.cpu import kernel_table
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import load_op
from trimoe.layer.source import source_of

__all__ = ["build"]


class _Trimoe:
    def __init__(self, case: Case, source: Weights, kind: str) -> None:
        # The other formats have one choice of group, which 0 stands for.
        group = GROUP if kind == "int4" else 0
        spec = LayerSpec(case.experts, case.hidden, case.inter, weights=kind, group=group)
        self.bytes_per_weight = spec.layer_bytes / case.parameters
        self.copies = case.copies(self.bytes_per_weight)
        self.isa = next(entry.isa for entry in kernel_table() if entry.chosen)
        self._op = load_op()
        self._layers = [ExpertLayer(spec) for _ in range(self.copies)]
        for index in range(case.experts):
            gate_up, down = source.expert(index)
            parts = gate_up[: case.inter], gate_up[case.inter :], down
            for layer in self._layers:
                layer.pack_expert(index, *(source_of(part) for part in parts))

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        handles = [layer.handle for layer in self._layers]
        return lambda copy: self._op(hidden, ids, weights, handles[copy])


def build(case: Case, source: Weights, kind: str, threads: int) -> _Trimoe:
    """kind: the weight format."""
    return _Trimoe(case, source, kind)
