"""ggml (llama.cpp) through the small library of ggml_moe.cpp; fp32 activations, as in llama.cpp."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from peers.cases import Case
from peers.data import Weights
from peers.peer import Call

__all__ = ["build"]

_TYPES = {"q4_0": 2, "q8_0": 8, "bf16": 30}  # values of enum ggml_type
_BYTES_PER_WEIGHT = {"bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(os.environ["PEERS_HOME"]) / "libggml_moe.so"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
        ("moe_create", pointer, [number] * 7),
        ("moe_tensor_bytes", number, [pointer, number]),
        ("moe_quantize", None, [number, pointer, pointer, number, number]),
        ("moe_set", None, [pointer, number, number, pointer]),
        ("moe_run", number, [pointer, number, number, pointer, pointer, pointer, pointer]),
        ("moe_buffer_name", ctypes.c_char_p, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Ggml:
    def __init__(self, case: Case, source: Weights, kind: str, threads: int) -> None:
        self._library, self._case, self._type = _library(), case, _TYPES[kind]
        self.bytes_per_weight = _BYTES_PER_WEIGHT[kind]
        self.copies = case.copies(self.bytes_per_weight)
        self._handle = self._library.moe_create(
            case.experts, case.hidden, case.inter, case.topk, self._type, self.copies, threads
        )
        self.isa = f"compiled for this machine, {self._library.moe_buffer_name(self._handle).decode()} buffer"
        for which in range(3):
            stacked = self._stack(source, which)
            for copy in range(self.copies):
                self._library.moe_set(self._handle, copy, which, stacked.data_ptr())

    def _stack(self, source: Weights, which: int) -> torch.Tensor:
        """Gate, up or down of all experts in ggml's blocks, bytes."""
        stacked = torch.empty(self._library.moe_tensor_bytes(self._handle, which), dtype=torch.uint8)
        for index, out in enumerate(stacked.chunk(self._case.experts)):
            gate_up, down = source.expert(index)
            matrix = (*gate_up.chunk(2), down)[which].contiguous()
            if matrix.dtype == torch.bfloat16 and self.bytes_per_weight == 2.0:
                out.copy_(matrix.view(torch.uint8).flatten())
                continue
            values = matrix.float()
            self._library.moe_quantize(self._type, values.data_ptr(), out.data_ptr(), *values.shape)
        return stacked

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        values, short_ids, out = hidden.float(), ids.int(), torch.empty(hidden.shape)

        def run(copy: int) -> torch.Tensor:
            status = self._library.moe_run(
                self._handle,
                copy,
                len(values),
                values.data_ptr(),
                short_ids.data_ptr(),
                weights.data_ptr(),
                out.data_ptr(),
            )
            if status:
                raise RuntimeError(f"ggml returned {status}")
            return out

        return run


def build(case: Case, source: Weights, kind: str, threads: int) -> _Ggml:
    """kind: "bf16", "q8_0" or "q4_0" (blocks of 32)."""
    return _Ggml(case, source, kind, threads)
