"""The bytes of an open file of weights, read where they are asked for.

Read and not mapped: a file that another program shortens meanwhile is an error, where touching a map of it
would end the process (SIGBUS), and no page of it counts as this process's memory.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from trimoe.errors import FailureError

__all__ = ["SourceFile"]


class SourceFile:
    """An open file, which is closed when nothing refers to this object.

    Attributes:
        path: where it was opened.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Has a descriptor of its own."""
        self.path = path
        self._descriptor = os.dup(descriptor)
        weakref.finalize(self, os.close, self._descriptor)

    def read_into(self, begin: int, memory: memoryview) -> None:
        """Fills the memory with the bytes from `begin` on; FailureError where the system cannot."""
        end = begin + len(memory)
        try:
            while len(memory):
                done = os.preadv(self._descriptor, [memory], end - len(memory))
                if not done:
                    raise FailureError(
                        expected=f"{end} bytes in {self.path}, as when it was opened",
                        got=f"{os.fstat(self._descriptor).st_size} bytes: it was shortened meanwhile",
                        hint="copying or downloading the file again, and leaving it alone while it is read",
                    )
                memory = memory[done:]
        except OSError as error:
            raise FailureError(
                expected=f"to read {self.path}",
                got=error.strerror or str(error),
                hint="another disk, or downloading the file again",
            ) from error

    def read(self, begin: int, nbytes: int) -> bytearray:
        """The bytes [begin, begin + nbytes); FailureError as for `read_into`."""
        content = bytearray(nbytes)
        self.read_into(begin, memoryview(content))
        return content

    def advise_willneed(self, begin: int, nbytes: int) -> None:
        """Ask the kernel to read the bytes ahead from the disk."""
        os.posix_fadvise(self._descriptor, begin, nbytes, os.POSIX_FADV_WILLNEED)
