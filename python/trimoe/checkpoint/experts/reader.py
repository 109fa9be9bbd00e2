"""Reads the experts that are packed into buffers, which are used again: what packing then takes them from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimoe.checkpoint.source_file import SourceFile
from trimoe.layer.source import ExpertSource, StridedView

__all__ = ["ExpertReader", "FileRange", "file_ranges"]

_LINE_BYTES = 64


class FileRange(NamedTuple):
    """The bytes [begin, end) of a file."""

    file: SourceFile
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """How many."""
        return self.end - self.begin

    def holds(self, view: StridedView) -> bool:
        """Whether a view begins here."""
        return self.file is view.owner and self.begin <= view.address < self.end


def file_ranges(expert: ExpertSource) -> list[FileRange]:
    """Where an expert's bytes lie, each byte once: views that interleave or touch share a range."""
    views = [view for view in expert if view is not None]
    views += [view.scale for view in views if view.scale is not None]
    ranges = list[FileRange]()
    for view in sorted(views, key=lambda view: (id(view.owner), view.address)):
        (begin, end), last = view.extent, ranges[-1] if ranges else None
        if last is not None and last.file is view.owner and begin <= last.end:
            ranges[-1] = last._replace(end=max(end, last.end))
        else:
            ranges.append(FileRange(view.owner, begin, end))
    return ranges


class ExpertReader:
    """So many buffers; any thread may read, and waits for a free one."""

    def __init__(self, buffers: int) -> None:
        self._free = SimpleQueue[npt.NDArray[np.uint8]]()
        for _ in range(buffers):
            self._free.put(np.empty(0, np.uint8))

    @contextmanager
    def read(self, expert: ExpertSource) -> Iterator[ExpertSource]:
        """The expert in memory, as `ExpertLayer.pack_expert` takes it; valid inside the `with`.

        Raises FailureError where a file became shorter, or cannot be read.
        """
        ranges = file_ranges(expert)
        offsets = list(itertools.accumulate((_whole_lines(one.nbytes) for one in ranges), initial=0))
        buffer = self._free.get()
        try:
            if buffer.nbytes < offsets[-1]:
                buffer = np.empty(offsets[-1], np.uint8)
            moved = dict[FileRange, int]()
            for part, offset in zip(ranges, offsets, strict=False):
                part.file.read_into(part.begin, buffer.data[offset : offset + part.nbytes])
                moved[part] = buffer.ctypes.data + offset - part.begin

            def in_memory(view: StridedView | None) -> StridedView | None:
                if view is None:
                    return None
                by = next(by for part, by in moved.items() if part.holds(view))
                return replace(view, address=view.address + by, owner=buffer, scale=in_memory(view.scale))

            yield ExpertSource(*map(in_memory, expert))  # type: ignore[arg-type] # up and down are there
        finally:
            self._free.put(buffer)


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // _LINE_BYTES) * _LINE_BYTES
