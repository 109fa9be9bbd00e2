"""The entry point `trimoe`: imports next to nothing before Ctrl-C means what it should."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from trimoe.cli.interrupts import leave

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Without arguments it is the process's own, `sys.argv`: then Ctrl-C ends the process even while the
    commands are being imported, and after the work.
    """
    is_program = arguments is None
    if is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from trimoe.cli.run import run

    return run(sys.argv[1:] if arguments is None else arguments, is_program=is_program)


if __name__ == "__main__":
    sys.exit(main())
