"""What nobody else can have written, and what is not so."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.others import SOMEBODY, be_user, give_to
from trimoe.own_files import check_own, is_at, is_mine, lock, open_own, own_folder


def status(mode: int, uid: int, gid: int = 77) -> os.stat_result:
    return os.stat_result([mode, 1, 1, 1, uid, gid, 0, 0, 0, 0])


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("owner", [0, 1000, SOMEBODY])
@pytest.mark.parametrize(
    "mode", [0o600, 0o644, 0o755, 0o700, 0o664, 0o775, 0o666, 0o777, 0o1777, 0o602, 0o620]
)
def test_who_may_have_written_it(
    mode: int, owner: int, user: int, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_user(monkeypatch, user)
    trusted = owner in (user, 0) and not mode & 0o022
    if trusted:
        check_own(status(kind | mode, owner))
        return
    with pytest.raises(OSError, match=r"of another user|that others may write to"):
        check_own(status(kind | mode, owner))


def test_what_is_unsafe_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    be_user(monkeypatch, 1000)
    for mode, uid, text in (
        (stat.S_IFDIR | 0o700, SOMEBODY, "a folder of another user (uid 12345)"),
        (stat.S_IFREG | 0o664, 1000, "a file that others may write to (mode 664; chmod go-w)"),
    ):
        with pytest.raises(OSError) as caught:
            check_own(status(mode, uid))
        assert caught.value.strerror == text


@pytest.mark.parametrize(
    ("uid", "group", "members", "primary", "trusted"),
    [
        (1000, "me", [], 77, True),
        (1000, "me", ["me"], 77, True),
        (1000, "me", ["me", "you"], 77, False),
        (1000, "staff", [], 77, False),
        (1000, "me", [], 78, False),
        (0, "me", [], 77, False),
    ],
)
def test_a_group_of_one_is_its_user(
    uid: int, group: str, members: list[str], primary: int, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many systems make a group for each user, and let it write whatever the user makes (umask 002)."""
    be_user(monkeypatch, uid)
    me = SimpleNamespace(pw_name="me", pw_uid=uid, pw_gid=primary)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=group, gr_mem=members))
    if trusted:
        check_own(status(stat.S_IFDIR | 0o775, uid))
    else:
        with pytest.raises(OSError, match="others may write"):
            check_own(status(stat.S_IFDIR | 0o775, uid))
    with pytest.raises(OSError, match="others may write"):
        check_own(status(stat.S_IFDIR | 0o777, uid))


def test_a_user_without_a_name_has_no_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    be_user(monkeypatch, 1000)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(OSError, match="others may write"):
        check_own(status(stat.S_IFDIR | 0o775, 1000))


def test_a_new_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for _ in range(2):
            with own_folder(tmp_path / "a" / "b", create=True):
                pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    with pytest.raises(FileNotFoundError), own_folder(tmp_path / "c"):
        pass


@pytest.mark.parametrize("kind", ["file", "pipe", "link to nothing"])
def test_a_folder_that_is_none(kind: str, tmp_path: Path) -> None:
    if kind == "file":
        (tmp_path / "a").write_text("")
    elif kind == "pipe":
        os.mkfifo(tmp_path / "a")
    else:
        (tmp_path / "a").symlink_to("b")
    with pytest.raises(OSError), own_folder(tmp_path / "a", create=True):
        pass
    assert len(os.listdir(tmp_path)) == 1


def test_files_of_an_own_folder_are_taken_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "writable").write_text("x")
    (tmp_path / "writable").chmod(0o666)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with own_folder(tmp_path) as folder:
        os.close(open_own("file", folder))
        for name, text in (
            ("link", "a link"),
            ("writable", "a file that others may write to (mode 666; chmod go-w)"),
            ("folder", "a folder"),
            ("pipe", "a named pipe"),
        ):
            with pytest.raises(OSError) as caught:
                open_own(name, folder)
            assert caught.value.strerror == text
        give_to(monkeypatch, tmp_path / "file")
        with pytest.raises(OSError, match="another user"):
            open_own("file", folder)
    assert not [
        name
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
        and os.readlink(f"/proc/self/fd/{name}").startswith(str(tmp_path))
    ]  # all closed again


def test_a_lock_is_one_s_own_and_a_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    with open(path, "rb") as one, open(path, "rb") as other, own_folder(tmp_path) as folder:
        assert lock(one.fileno()) and not lock(other.fileno())
        assert is_at(one.fileno(), path) and is_at(one.fileno(), "a", folder)
        path.rename(tmp_path / "b")
        path.symlink_to("b")
        assert not is_at(one.fileno(), "a", folder) and is_at(one.fileno(), "b", folder)
        path.unlink()
        assert not is_at(one.fileno(), path)
        assert is_mine(os.fstat(one.fileno())) and not is_mine(status(stat.S_IFREG, SOMEBODY))
    be_user(monkeypatch, 1000)
    assert not is_mine(status(stat.S_IFREG, 0))  # root's is trusted, but not ours to remove


def test_errors_that_are_not_about_links_stay_what_they_are(tmp_path: Path) -> None:
    with own_folder(tmp_path) as folder, pytest.raises(FileNotFoundError) as caught:
        open_own("none", folder)
    assert caught.value.errno == errno.ENOENT
