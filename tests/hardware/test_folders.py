"""Where the cache lies and what is told about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import drop_file_capabilities
from trimoe.hardware.folders import cache_folder, cache_state


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TRIMOE_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "trimoe"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/trimoe")
    monkeypatch.setenv("TRIMOE_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


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
