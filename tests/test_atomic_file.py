"""Files are there whole or not at all, and what cannot be written is said first."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.others import interrupt_after
from trimoe.atomic_file import atomic_file, check_output
from trimoe.errors import FailureError, InputError

PACKAGE = Path(__file__).parents[1] / "python" / "trimoe"


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_an_interrupt_as_soon_as_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, "open")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(FailureError, match=r"expected to write .*; got No space left"),
        atomic_file(tmp_path / "a"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FailureError, match="expected to write"), atomic_file(tmp_path / "none" / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_bad_names(tmp_path: Path) -> None:
    check_output(tmp_path / "a.PNG", ".png")
    for path, told in (("a.txt", "ends with .png or .json"), ("none/a.png", "folder that can be written")):
        with pytest.raises(InputError, match=told):
            check_output(tmp_path / path, ".png", ".json")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="expected a file to write to; got a folder"):
        check_output(tmp_path / "b.png", ".png")


def write(path: Path, content: bytes = b"new") -> None:
    with atomic_file(path) as file:
        file.write(content)


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_stays_what_it_is(kind: str, linked: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:  # the test may run as root: never the device itself
        path.symlink_to("/dev/null")
    if linked:
        (tmp_path / "link.png").symlink_to(path)
        path = tmp_path / "link.png"
    before = os.lstat(path), os.stat(path)
    for act in (lambda: check_output(path, ".png"), lambda: write(path)):
        with pytest.raises(InputError, match=rf"expected a file to write to; got a .*{kind}.*--json"):
            act()
    after = os.lstat(path), os.stat(path)
    assert all(os.path.samestat(one, other) for one, other in zip(before, after, strict=True))


def test_a_stream_is_no_file() -> None:
    """Standard output as a pipe leads through a link in /proc to no path at all."""
    code = "from pathlib import Path; from trimoe.atomic_file import *; check_output(Path('/dev/stdout'), '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "expected a file to write to; got a named pipe, /dev/stdout; try" in done.stderr


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, other = tmp_path / "there" / "a.bin", tmp_path / "link", tmp_path / "other"
    link.symlink_to(other)
    other.symlink_to("there/a.bin")
    for content in (b"first", b"second"):
        check_output(link, "")
        write(link, content)
        assert target.read_bytes() == content
        assert link.is_symlink() and other.is_symlink() and not target.is_symlink()
    assert sorted(os.listdir(tmp_path / "there")) == ["a.bin"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="Too many levels"):
        write(tmp_path / "loop")


def test_new_and_older_files_have_their_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    monkeypatch.setattr(os, "umask", None)  # setting it, if only for a moment, is seen by all threads
    try:
        write(tmp_path / "a")
        (tmp_path / "a").chmod(0o600)
        write(tmp_path / "b")
        write(tmp_path / "a")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o600, 0o640]


def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("theirs")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "a")
    for act in (lambda: check_output(tmp_path / "a", ""), lambda: write(tmp_path / "a")):
        with pytest.raises(InputError, match="may not be written"):
            act()
    assert (tmp_path / "a").read_text() == "theirs"


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    write(tmp_path / ("a" * 255))
    assert [len(name) for name in os.listdir(tmp_path)] == [255]


# What removes, replaces or begins files; each place shows that what it touches is ours.
WRITERS = {"atomic_file.py", "store/cache.py", "store/folder_writer.py", "store/new_folder.py"}
WRITING = re.compile(
    r"os\.(unlink|remove|rename|replace|renames|rmdir|removedirs|truncate|ftruncate|link|symlink|chmod|fchmod)"
    r"|shutil\.(rmtree|move|copy.*)|tempfile\..*|\w*(path|folder|file|part|leftover)\.(unlink|rmdir|rename|replace"
    r"|write_text|write_bytes|touch|symlink_to|hardlink_to|chmod)"
)


@pytest.mark.slow
def test_nothing_else_removes_or_replaces_files() -> None:
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and WRITING.fullmatch(ast.unparse(node.func))
    }
    assert writers == WRITERS
