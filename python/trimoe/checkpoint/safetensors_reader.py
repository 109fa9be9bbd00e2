"""Reads a safetensors file: all of its header at once, tensors when they are asked for.

File layout: 8 bytes little-endian header length, a JSON header, then the data. Opening checks the whole
header against the size of the file, so that a truncated or corrupted file is refused before any data is
touched. As the reference implementation does, it demands that the tensors fill the data part without a gap
or an overlap.
"""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from trimoe.checkpoint.safetensors_header import VIEW_DTYPES, TensorEntry, parse_header, read_header
from trimoe.checkpoint.source_file import SourceFile
from trimoe.errors import FailureError, InputError
from trimoe.input_file import open_input
from trimoe.layer.source import StridedView

__all__ = ["SafetensorsFile"]


class SafetensorsFile:
    """One safetensors file, open, its header fully checked.

    Attributes:
        path: the file.
        tensors: what the header says, by tensor name, in the order of the data.
        metadata: the header's `__metadata__`, text to text.
        header_bytes: bytes before the first tensor's data: the length field and the header.
        size_bytes: size of the file.
        mtime_ns: the file's modification time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and check a file.

        Raises:
            InputError: the file is missing, unreadable, truncated or corrupted.
            FailureError: the system cannot read the file.
        """
        self.path = Path(path)
        hint = "checking the path: it must name one .safetensors file"
        with open_input(self.path, f"a safetensors file in {path}", hint) as file:
            status = os.fstat(file.fileno())
            self.size_bytes, self.mtime_ns = status.st_size, status.st_mtime_ns
            try:
                header = read_header(file, self.path, self.size_bytes)
                self._file: SourceFile | None = SourceFile(self.path, file.fileno())
            except OSError as error:
                raise FailureError(
                    expected=f"to read {self.path}",
                    got=error.strerror or str(error),
                    hint="another disk, more open files (ulimit -n), or downloading the file again",
                ) from error
        self.header_bytes = 8 + len(header)
        self.tensors, self.metadata = parse_header(header, self.path, self.size_bytes)

    def entry(self, name: str) -> TensorEntry:
        """What the header says about a tensor; InputError if there is none of that name."""
        entry = self.tensors.get(name)
        if entry is None:
            raise InputError(
                expected=f"a tensor {name!r} in {self.path}",
                got=f"a file of {len(self.tensors)} other tensors",
                hint="a checkpoint that fits its model, or downloading it again",
            )
        return entry

    def view(self, name: str) -> StridedView:
        """A tensor of weights, where it lies in the file, which stays open for it also after `close`.

        Raises:
            InputError: the file has no tensor of that name, or one of a dtype that no weights have.
        """
        entry = self.entry(name)
        if entry.dtype not in VIEW_DTYPES:
            raise InputError(
                expected=f"a tensor of dtype {', '.join(VIEW_DTYPES)} as {name}",
                got=entry.dtype,
                hint="a checkpoint that fits its model",
            )
        sizes = itertools.accumulate(reversed(entry.shape[1:]), operator.mul, initial=1)
        strides = tuple(reversed(list(sizes)[: len(entry.shape)]))
        dtype = VIEW_DTYPES[entry.dtype]
        return StridedView(entry.begin, dtype, entry.shape, strides, self._open_file(), name=name)

    def chunks(self, name: str, nbytes: int) -> Iterator[bytearray]:
        """The bytes of a tensor of any dtype, so many at a time; errors as of `entry` and `read`."""
        entry = self.entry(name)
        for at in range(0, entry.nbytes, nbytes):
            yield self.read(entry.begin + at, min(nbytes, entry.nbytes - at))

    def read(self, begin: int, nbytes: int) -> bytearray:
        """The raw bytes [begin, begin + nbytes) of the file; FailureError where it became shorter."""
        return self._open_file().read(begin, nbytes)

    def close(self) -> None:
        """Let go of the file; it is closed when the last view is gone."""
        self._file = None

    def _open_file(self) -> SourceFile:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        return self._file

    def __enter__(self) -> SafetensorsFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
