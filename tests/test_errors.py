"""Errors are one line that any terminal shows."""

from __future__ import annotations

import pytest

from trimoe.errors import InputError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\t c\u2028d", "a b c d"),
        ("\x1b[2Jgone\a", "\\x1b[2Jgone\\x07"),
        ("\0", "\\x00"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("Größe 大", "Größe 大"),
    ],
    ids=ascii,
)
def test_names_of_strangers_are_shown_not_obeyed(text: str, shown: str) -> None:
    """As a tensor's name in a checkpoint may be."""
    for part in ("expected", "got", "hint"):
        error = InputError(**{"expected": "e", "got": "g", "hint": "h", part: text})
        assert getattr(error, part) == shown and shown in str(error)
