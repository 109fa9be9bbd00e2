"""Folders that are there whole or not at all, and never at the cost of somebody else's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from support.others import give_to, interrupt_after
from trimoe.errors import FailureError, InputError
from trimoe.store.new_folder import new_folder
from trimoe.store.packed_folder import PACKED_FILE

OURS = b"trimoe packed 2\n half a file"


def write(place: Path) -> None:
    with new_folder(place) as part:
        (part / PACKED_FILE).write_bytes(OURS)
        assert part.parent == Path(os.path.realpath(place)).parent


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


WHOLE = {"out": None, f"out/{PACKED_FILE}": OURS}


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "out")
    finally:
        os.umask(before)
    assert tree(tmp_path) == WHOLE
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    with pytest.raises(InputError, match="a new folder"):
        write(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "more") as part:
        (part / PACKED_FILE).write_bytes(OURS)
        raise KeyboardInterrupt
    assert tree(tmp_path) == WHOLE


def test_an_interrupt_as_soon_as_the_folder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, "mkdir")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", [".out.part", ".out.01234567.part"])
@pytest.mark.parametrize("kind", ["folder", "link", "file", "packed file below", "link in the place of it"])
def test_what_only_has_the_name_of_a_leftover_stays(kind: str, name: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    for folder in (place, tmp_path / "precious"):
        folder.mkdir()
        (folder / "mine").write_text("precious")
    part = place / name
    if kind == "link":
        part.symlink_to(tmp_path / "precious")
        (tmp_path / "precious" / PACKED_FILE).write_bytes(OURS)
    elif kind == "file":
        part.write_bytes(OURS)
    else:
        part.mkdir()
        (part / "mine").write_text("precious")
        if kind == "packed file below":
            (part / "deep").mkdir()
            (part / "deep" / PACKED_FILE).write_bytes(OURS)
        elif kind == "link in the place of it":
            (tmp_path / "ours").write_bytes(OURS)
            (part / PACKED_FILE).symlink_to(tmp_path / "ours")
    before = tree(tmp_path)
    write(place / "out")
    assert tree(tmp_path) == {**before, **{f"place/{path}": what for path, what in WHOLE.items()}}


def leave(folder: Path, name: str = ".out.01234567.part") -> Path:
    """What a killed process leaves behind."""
    part = folder / name
    part.mkdir()
    (part / PACKED_FILE).write_bytes(OURS)
    (part / "tokenizer.json").write_text("half")
    return part


def test_leftovers_of_ours_go(tmp_path: Path) -> None:
    leave(tmp_path)
    leave(tmp_path, ".out.89abcdef.part")
    (tmp_path / ".out.00000000.part").mkdir()  # killed before it wrote anything
    other = leave(tmp_path, ".another.01234567.part")
    write(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", other.name}


def test_leftovers_of_another_user_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = leave(tmp_path)
    give_to(monkeypatch, part)
    write(tmp_path / "out")
    assert sorted(os.listdir(part)) == [PACKED_FILE, "tokenizer.json"]


def test_folders_below_a_leftover_stay(tmp_path: Path) -> None:
    part = leave(tmp_path)
    (part / "a").mkdir()
    (part / "a" / "mine").write_text("precious")
    write(tmp_path / "out")
    assert (part / "a" / "mine").read_text() == "precious"


def test_links_are_followed(tmp_path: Path) -> None:
    for name in ("there", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("there/out")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and tree(tmp_path / "there") == WHOLE
    (tmp_path / "to-empty").symlink_to("empty")
    write(tmp_path / "to-empty")
    assert os.listdir(tmp_path / "empty") == [PACKED_FILE]
    (tmp_path / "to-full").symlink_to("there")
    with pytest.raises(InputError, match="a new folder"):
        write(tmp_path / "to-full")


@pytest.mark.parametrize("kind", ["pipe", "device", "file"])
def test_what_is_no_folder_stays(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/null")
    else:
        place.write_text("precious")
    before = os.stat(place)
    with pytest.raises(InputError, match="a new folder"):
        write(place)
    assert os.path.samestat(os.stat(place), before) and len(os.listdir(tmp_path)) == 1


def test_what_appears_in_the_place_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match="not empty"), new_folder(tmp_path / "out") as part:
        (part / PACKED_FILE).write_bytes(OURS)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("precious")
    assert tree(tmp_path) == {"out": None, "out/mine": b"precious"}


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FailureError, match="No such file"):
        write(tmp_path / "no" / "parent")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(FailureError, match="No space left"):
        write(tmp_path / "out")
    assert os.listdir(tmp_path) == []
