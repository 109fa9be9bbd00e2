"""Small readers for /proc and /sys. An absent or unreadable file is an ordinary answer, never an error."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kb_field_bytes", "parse_cpu_list", "read_int", "read_text"]


def read_text(path: Path) -> str | None:
    """Content of `path`, stripped; None where it cannot be read (sandboxes hide much of /sys)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The one integer in `path`; None where there is none (cgroup v2 writes `max` for "no limit")."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of a kernel list such as `0-3,8`; empty for the empty list."""
    cpus: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def kb_field_bytes(text: str | None, field: str) -> int | None:
    """Bytes of the line `field: 123 kB` in meminfo-like text; None where there is no such line."""
    for line in (text or "").splitlines():
        head, separator, value = line.partition(":")
        # A node's meminfo prefixes each line with `Node 0 `, so the field is the last word before the colon.
        if separator and head.split()[-1:] == [field]:
            number = value.split()[:1]
            return int(number[0]) * 1024 if number and number[0].isdigit() else None
    return None
