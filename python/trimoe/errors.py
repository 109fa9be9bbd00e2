"""The one family of exceptions: each says what was expected, what came, and what to try."""

from __future__ import annotations

import re

__all__ = ["FailureError", "InputError", "TrimoeError"]


class TrimoeError(Exception):
    """Base of all errors that trimoe raises on purpose; one line, with a hint.

    Args:
        expected: what the caller should have given or what should have happened.
        got: what came instead.
        hint: what to try next.
    """

    exit_code = 1

    def __init__(self, *, expected: str, got: str, hint: str) -> None:
        self.expected, self.got, self.hint = map(_one_line, (expected, got, hint))
        super().__init__(f"expected {self.expected}; got {self.got}; try {self.hint}")


class InputError(TrimoeError):
    """The input is bad: a path, a file, a model, an argument. Exit code 2."""

    exit_code = 2

    @classmethod
    def from_native(cls, error: ValueError) -> InputError:
        """The native core's error, which comes as one line of text in the form of all trimoe errors."""
        parts = re.fullmatch("trimoe: expected (.*); got (.*); try (.*)", str(error), re.DOTALL)
        expected, got, hint = parts.groups() if parts else ("a valid argument", str(error), "`trimoe doctor`")
        return cls(expected=expected, got=got, hint=hint)


class FailureError(TrimoeError):
    """The input is fine but the work failed: disk full, out of memory. Exit code 1."""

    exit_code = 1


def _one_line(text: str) -> str:
    """What a terminal would obey, or cannot show, escaped: names come from files of strangers."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
