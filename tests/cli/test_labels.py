"""What a newcomer cannot know is explained where it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.command_line import run_here
from support.commands import SMALL, make_ready

# By command: words of its tables and lists that a line in brackets below them explains.
EXPLAINED = {
    "generate": ["busy", "of roofline", "NDP"],
    "doctor": ["CPUID", "OS", "permission", "entry", "weights"],
    "calibrate": ["held out"],
    "bench error": ["g32", "g64", "g128", "W4A16"],
    "simulate": ["busy", "with experts", "h2d", "d2h", "link", "channel"],
    "compare": ["tokens/s"],
    "plan": ["dense weights", "reserve", "as searched", "ratio"],
    "policy gap": ["p95", "over the machine", "over its own ways", "ways", "fetch"],
    "policy stratify": ["hit rate", "stratified", "oracle"],
    "ndp bench": ["RD", "WR", "ACT", "PRE", "REF"],
    "ndp trace": ["RD", "WR", "ACT", "PRE", "REF"],
    "ndp expert": ["by formula", "command", "result", "broadcast", "gate and up", "down", "gather"],
    "ndp sweep": ["ridge", "relayout"],
    "ndp contention": ["NDP", "share", "in step", "read, mean", "p99", "switches"],
    "ndp validate": ["target"],
    "trace stats": [
        "coefficient of variation",
        "gini",
        "hot set",
        "correlation",
        "of popularity",
        "skew_zipf",
    ],
}
# Nothing of theirs needs a line.
PLAIN = {
    *("inspect", "pack", "bench layer", "bench dispatch", "ndp latency", "ndp step", "trace generate"),
    *("trace record", "policy bench", "policy options"),
    *("cache list", "cache rm", "cache verify", "cache path"),
}


def test_every_command_was_looked_at() -> None:
    assert EXPLAINED.keys() | PLAIN == SMALL.keys() and not EXPLAINED.keys() & PLAIN


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPLAINED)
def test_words_are_explained(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_ready(tmp_path, monkeypatch)
    outcome = run_here([*path.split(), *SMALL[path]], capfd)
    assert outcome.code == 0
    notes = " ".join(line.strip() for line in outcome.out.splitlines() if re.match(r"  \(.*\)$", line))
    shown = "\n".join(line for line in outcome.out.splitlines() if not re.match(r"  \(.*\)$", line))
    for word in EXPLAINED[path]:
        assert word.lower() in shown.lower(), f"{word} is no longer there: nothing to explain"
        # A word stands before a colon, alone or in a list of such words, or is told within an explanation.
        assert re.search(rf"\b{re.escape(word)}\b", notes), f"{word} is not explained: {notes}"
