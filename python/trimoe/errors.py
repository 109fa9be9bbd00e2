"""The one family of exceptions: what was expected, what came and, where anything helps, what to try.

The native modules raise them too (csrc/bindings/errors_py.h), with the same fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["FailureError", "InputError", "NdpError", "TrimoeError", "nearest"]

_COMPARED = 64  # letters of a name that are looked at: comparing is quadratic


def nearest(name: str, choices: Iterable[str]) -> str:
    """The choice that is written most like a name that is none of them, for hints; of equals the first."""
    from difflib import SequenceMatcher

    asked = SequenceMatcher(b=name[:_COMPARED].lower(), autojunk=False)

    def likeness(choice: str) -> float:
        asked.set_seq1(choice[:_COMPARED].lower())
        return asked.ratio()

    return max(choices, key=likeness)


class TrimoeError(Exception):
    """Base of all errors that trimoe raises on purpose; one line.

    Args:
        expected: what the caller should have given or what should have happened.
        got: what came instead.
        hint: what to try next; empty where nothing is known to help.
    """

    exit_code = 1

    def __init__(self, *, expected: str, got: str, hint: str = "") -> None:
        self.expected, self.got, self.hint = map(_one_line, (expected, got, hint))
        line = f"expected {self.expected}; got {self.got}"
        super().__init__(f"{line}; try {self.hint}" if self.hint else line)


class InputError(TrimoeError):
    """The input is bad: a path, a file, a model, an argument. Exit code 2."""

    exit_code = 2


class FailureError(TrimoeError):
    """The input is fine but the work failed: disk full, a device gone, a policy with a bug. Exit code 1."""


class NdpError(FailureError):
    """A DIMM failed. Its weights are where they were: the experts can run elsewhere.

    Args:
        dimm: its number; `code`, which is what came: BAD_CRC, BUF_OVERFLOW, TIMEOUT, ECC, ... (docs/ndp.md).
        failures: the codes of all that failed in the same step, by number.
    """

    def __init__(
        self, *, expected: str, got: str, hint: str = "", dimm: int, failures: Mapping[int, str]
    ) -> None:
        super().__init__(expected=expected, got=got, hint=hint)
        self.dimm, self.code, self.failures = dimm, self.got, dict(failures)


def _one_line(text: str) -> str:
    """What a terminal would obey, or cannot show, escaped: names come from files of strangers."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
