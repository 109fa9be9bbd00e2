"""The one family of exceptions: each says what was expected, what came, and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["FailureError", "InputError", "TrimoeError", "nearest"]

_COMPARED = 64  # letters of a name that are looked at: comparing is quadratic
_LIST = re.compile(r"(?:[\w.-]+(?:, | or ))+[\w.-]+$")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The choice that is written most like a name that is none of them, for hints; of equals the first."""
    from difflib import SequenceMatcher

    asked = SequenceMatcher(b=name[:_COMPARED].lower(), autojunk=False)

    def likeness(choice: str) -> float:
        asked.set_seq1(choice[:_COMPARED].lower())
        return asked.ratio()

    return max(choices, key=likeness)


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
        return cls(expected=expected, got=got, hint=_nearest_listed(expected, got, hint))


class FailureError(TrimoeError):
    """The input is fine but the work failed: disk full, out of memory. Exit code 1."""

    exit_code = 1


def _nearest_listed(expected: str, got: str, hint: str) -> str:
    """The hint; where it is a list of names, or one out of a list, and one word came, the nearest first."""
    listed = _LIST.search(expected) or _LIST.search(hint)
    names = re.split(", | or ", listed.group()) if listed else []
    are_names = all(re.search("[A-Za-z]", name) for name in names) and re.fullmatch(r"[\w.-]+", got)
    if not (names and are_names):
        return hint
    if hint.split(", ") == names:
        return f"{nearest(got, names)}, out of {hint}"
    return nearest(got, names) if hint in names or hint.startswith("one of the ") else hint


def _one_line(text: str) -> str:
    """What a terminal would obey, or cannot show, escaped: names come from files of strangers."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
