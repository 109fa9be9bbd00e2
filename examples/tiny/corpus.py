"""The text that trimoe-tiny learns: four kinds of free text, taken out of Debian packages.

Each source is a function from an unpacked package to documents. Held-out text is whole documents, or for
one long book its tail, and shares no long paragraph with the text that is trained on: repeats are dropped
before the split.
"""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_PERCENT = 3
REPEAT_MIN_CHARS = 60
PYTHON_SKIPPED = ("pydoc_data", "lib2to3", "encodings", "test", "lib-dynload", "_sysconfigdata", "ensurepip")
SQLITE_SKIPPED = re.compile(
    r"crossref|requirements|syntaxdiagrams|keyword_index|releaselog|capi3ref|toc|doclist"
)
SQLITE_MENU_END = "Search Changelog"
BOOK_TITLE = re.compile(r"^\S.*\d+$")


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of text: the Debian packages that carry it, its licence and the function that reads it."""

    name: str
    packages: tuple[str, ...]
    licence: str
    read: Callable[[Path], list[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """One source after cleaning: documents for training, documents held out, and where they came from."""

    source: Source
    versions: dict[str, str]
    train: list[str]
    held_out: list[str]


def read_bible(root: Path) -> list[str]:
    """The King James Bible, one document per chapter, one verse a line."""
    # The text is stored compressed in a format of its own, which the package's own reader unpacks.
    command = [str(root / "usr/bin/bible"), "-p", str(root / "usr/lib"), "gen1:1-rev22:21"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    verses: list[str] = []
    for line in text.splitlines():
        starts_verse = re.match(r"\s+\d+ ", line) is not None
        if starts_verse or BOOK_TITLE.match(line) or not line.strip() or not verses:
            verses.append(line.strip())
        else:
            verses[-1] = f"{verses[-1]} {line.strip()}"
    text = "\n".join(verses)
    return [chapter.strip() for chapter in re.split(r"\n(?=\n[1-3A-Z][^\n]* \d+\n)", text)]


def read_sqlite(root: Path) -> list[str]:
    """The SQLite documentation, one document per page, without markup, drawings and generated indexes."""
    pages = sorted((root / "usr/share/doc/sqlite3").rglob("*.html"))
    return [
        _plain(page.read_text("utf-8", "replace")) for page in pages if not SQLITE_SKIPPED.search(str(page))
    ]


def read_python(root: Path) -> list[str]:
    """Python's standard library, one document per module, without tables of data and tests."""
    modules = sorted((root / "usr/lib").rglob("*.py"))
    wanted = [m for m in modules if m.is_file() and not any(skipped in str(m) for skipped in PYTHON_SKIPPED)]
    return [module.read_text("utf-8", "replace") for module in wanted]


def read_jargon(root: Path) -> list[str]:
    """The Jargon File, one document per entry."""
    packed = (root / "usr/share/dictd/jargon.dict.dz").read_bytes()
    text = zlib.decompress(packed, wbits=31).decode("utf-8", "replace")
    return [entry.strip() for entry in re.split(r"\n(?=\S[^\n]*\n )", text)]


SOURCES = (
    Source(
        "King James Bible", ("bible-kjv-text", "bible-kjv"), "public domain (copyright expired)", read_bible
    ),
    Source("SQLite documentation", ("sqlite3-doc",), "public domain (dedicated by its authors)", read_sqlite),
    Source("Jargon File", ("dict-jargon",), "public domain (stated by the file itself)", read_jargon),
    Source(
        "Python standard library",
        ("libpython3-stdlib", "libpython3-minimal"),
        "Python Software Foundation License 2",
        read_python,
    ),
)


def split(source: Source, versions: dict[str, str], root: Path, seen: set[bytes]) -> Part:
    """Read one source from `root`, drop repeats of what `seen` holds, and hold out about 3 % of its bytes."""
    documents = [kept for text in source.read(root) if (kept := _drop_repeats(text, seen))]
    if source.read is read_bible:
        cut = _tail_start(documents)
        return Part(source, versions, documents[:cut], documents[cut:])
    held_out = [text for text in documents if _is_held_out(text)]
    return Part(source, versions, [text for text in documents if not _is_held_out(text)], held_out)


def _is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text[:400].encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def _tail_start(documents: list[str]) -> int:
    budget = sum(map(len, documents)) * HELD_OUT_PERCENT // 100
    cut = len(documents)
    while budget > 0:
        cut -= 1
        budget -= len(documents[cut])
    return cut


def _drop_repeats(text: str, seen: set[bytes]) -> str:
    return "\n\n".join(_new_paragraphs(text, seen)).strip()


def _new_paragraphs(text: str, seen: set[bytes]) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if len(paragraph) >= REPEAT_MIN_CHARS:
            key = hashlib.sha256(" ".join(paragraph.split()).encode()).digest()
            if key in seen:
                continue
            seen.add(key)
        yield paragraph.rstrip()


def _plain(page: str) -> str:
    page = re.sub(r"(?is)<(script|style|svg|head)\b.*?</\1>|<!--.*?-->", "", page)
    page = re.sub(r"(?i)</?(p|div|h\d|tr|table|ul|ol|blockquote|pre|dl)\b[^>]*>", "\n\n", page)
    page = re.sub(r"(?i)<li\b[^>]*>", "\n- ", page)
    page = re.sub(r"(?i)<(br|dt|dd)\b[^>]*>", "\n", page)
    page = html.unescape(re.sub(r"<[^>]+>", "", page)).replace("\xa0", " ")
    page = page.rpartition(SQLITE_MENU_END)[2]
    lines = [line.rstrip() for line in page.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
