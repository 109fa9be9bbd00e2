"""Where the cache lies and what is told about it."""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import drop_file_capabilities
from trimoe.errors import InputError
from trimoe.hardware.folders import cache_folder, cache_state
from trimoe.hardware.profile import load_profile


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TRIMOE_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "trimoe"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/trimoe")
    monkeypatch.setenv("TRIMOE_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_relative_xdg_cache_home_is_ignored_as_its_rules_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TRIMOE_CACHE")
    for odd in ("", "relative", "./x", "~/x"):
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert cache_folder() == tmp_path / ".cache" / "trimoe"


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that the system does not know, as in many a container."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "TRIMOE_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_that_leads_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMOE_CACHE", "~no-such-user/x")
    with pytest.raises(InputError, match=r"got TRIMOE_CACHE=~no-such-user/x, the home of no user; try"):
        cache_folder()
    assert cache_state().path == "none: TRIMOE_CACHE=~no-such-user/x, the home of no user"
    no_home(monkeypatch)
    with pytest.raises(InputError, match="got neither HOME nor TRIMOE_CACHE; try setting TRIMOE_CACHE"):
        cache_folder()
    state = cache_state()
    assert not state.exists and not state.writable and state.disk_free_bytes is None
    monkeypatch.setenv("TRIMOE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


def test_a_calibration_that_others_can_have_written_is_refused(private_cache: Path) -> None:
    private_cache.mkdir()
    path = private_cache / "this-machine.json"
    path.write_text("{}")
    path.chmod(0o666)
    with pytest.raises(InputError, match="a file that others may write to"):
        load_profile("this-machine")
    path.chmod(0o600)
    with pytest.raises(InputError, match="a calibration of this machine"):
        load_profile("this-machine")


def test_looking_at_the_folder_creates_nothing(tmp_path: Path) -> None:
    state = cache_state(tmp_path / "a" / "b")
    assert not state.exists
    assert state.writable
    assert state.used_bytes == 0
    assert state.disk_free_bytes
    assert list(tmp_path.iterdir()) == []


def test_used_bytes_count_the_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(b"x" * 100)
    (tmp_path / "two").write_bytes(b"x" * 10)
    assert cache_state(tmp_path).used_bytes == 110


def test_a_file_in_the_way_is_not_writable(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    state = cache_state(blocked / "trimoe")
    assert not state.exists
    assert not state.writable


def test_what_lies_behind_a_closed_folder_is_not_writable(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from trimoe.hardware.folders import cache_state; "
        "print(cache_state(Path(sys.argv[1])))"
    )
    for mode in (0o000, 0o600):
        closed.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", code, str(closed / "inner" / "trimoe")],
            capture_output=True,
            text=True,
            preexec_fn=drop_file_capabilities,
        )
        closed.chmod(0o755)
        assert "exists=False, writable=False, used_bytes=0" in done.stdout, done.stderr
