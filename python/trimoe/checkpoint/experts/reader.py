"""Reads the experts that are packed into buffers, which are used again: what packing then takes them from."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue

from trimoe.checkpoint.experts.views import ExpertSource, Matrix, Vector
from trimoe.checkpoint.safetensors_reader import TensorView
from trimoe.layer.expert_layer import Source

__all__ = ["ExpertReader"]

_DTYPES = {
    "F32": "fp32", "BF16": "bf16", "F16": "fp16", "F8_E4M3": "fp8", "MXFP4": "mxfp4", "F8_E8M0": "e8m0",
}  # fmt: skip
_LINE_BYTES = 64


class ExpertReader:
    """So many buffers; any thread may read, and waits for a free one."""

    def __init__(self, buffers: int) -> None:
        self._free = SimpleQueue[bytearray]()
        for _ in range(buffers):
            self._free.put(bytearray())

    @contextmanager
    def read(self, expert: ExpertSource) -> Iterator[tuple[Source | None, ...]]:
        """Gate, up, down and their biases, as `ExpertLayer.pack_expert` takes them; valid inside the `with`.

        Raises FailureError where a file became shorter, or cannot be read.
        """
        owners = expert.owners
        begins = list(itertools.accumulate((_whole_lines(owner.nbytes) for owner in owners), initial=0))
        buffer = self._free.get()
        try:
            if len(buffer) < begins[-1]:
                buffer = bytearray(begins[-1])
            address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            moved_by = dict[TensorView, int]()
            for owner, begin in zip(owners, begins, strict=False):
                owner.file.read_into(owner.address, memoryview(buffer)[begin : begin + owner.nbytes])
                moved_by[owner] = address + begin - owner.address
            yield tuple(None if part is None else _source(part, moved_by) for part in expert.parts)
        finally:
            self._free.put(buffer)


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // _LINE_BYTES) * _LINE_BYTES


def _source(part: Matrix | Vector, moved_by: Mapping[TensorView, int]) -> Source:
    dtype, address = _DTYPES[part.dtype], part.address + moved_by[part.owner]
    if isinstance(part, Vector):
        return Source(address, dtype, part.size, 1, part.stride, 0, part.owner)
    scale = None if part.scale is None else _source(part.scale, moved_by)
    return Source(
        address, dtype, part.rows, part.cols, part.row_stride, part.col_stride, part.owner,
        scale, part.block_rows, part.block_cols,
    )  # fmt: skip
