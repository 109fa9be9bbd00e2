"""Reads a safetensors file: all of its header at once, tensors when they are asked for.

File layout: 8 bytes little-endian header length, a JSON header, then the data. Opening checks the whole
header against the size of the file, so that a truncated or corrupted file is refused before any data is
touched. As the reference implementation does, it demands that the tensors fill the data part without a gap
or an overlap.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from trimoe.checkpoint.safetensors_header import TensorEntry, parse_header, read_header
from trimoe.checkpoint.source_file import SourceFile
from trimoe.errors import FailureError, InputError
from trimoe.input_file import open_input

__all__ = ["SafetensorsFile", "TensorEntry", "TensorView"]


@dataclass(frozen=True)
class TensorView:
    """A tensor, or a contiguous part of one, in a file that the view keeps open.

    Attributes:
        name: the tensor's name; a part has an index behind it, such as "experts.down_proj[3]".
        dtype: the safetensors name of the element type.
        shape: the dimensions, outermost first; row-major.
        address: where the first byte lies in the file; no alignment is promised.
        nbytes: size of the data.
        file: the file that holds the data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    address: int
    nbytes: int
    file: SourceFile

    def __getitem__(self, index: int) -> TensorView:
        """The part at `index` of the outermost dimension: shape `shape[1:]`, no copy."""
        if not self.shape or not 0 <= index < self.shape[0]:
            raise IndexError(f"index {index} outside the first dimension of {self.name}, shape {self.shape}")
        part_bytes = self.nbytes // self.shape[0]
        address = self.address + index * part_bytes
        return TensorView(f"{self.name}[{index}]", self.dtype, self.shape[1:], address, part_bytes, self.file)

    def read(self) -> bytearray:
        """A copy of the bytes; FailureError where the file became shorter or cannot be read."""
        return self.file.read(self.address, self.nbytes)

    def chunks(self, nbytes: int) -> Iterator[bytearray]:
        """The bytes, so many at a time; FailureError as for `read`."""
        for at in range(0, self.nbytes, nbytes):
            yield self.file.read(self.address + at, min(nbytes, self.nbytes - at))

    def advise_willneed(self) -> None:
        """Ask the kernel to read the data ahead from the disk."""
        self.file.advise_willneed(self.address, self.nbytes)


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

    def view(self, name: str) -> TensorView:
        """The tensor's view; it stays valid after `close`.

        Raises:
            InputError: the file has no tensor of that name.
        """
        entry = self.tensors.get(name)
        if entry is None:
            raise InputError(
                expected=f"a tensor {name!r} in {self.path}",
                got=f"a file of {len(self.tensors)} other tensors",
                hint="a checkpoint that fits its model, or downloading it again",
            )
        return TensorView(name, entry.dtype, entry.shape, entry.begin, entry.nbytes, self._open_file())

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
