"""The packed cache among other users and other files: nothing of theirs is mapped, waited for or removed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command_line import drop_file_capabilities
from support.others import give_to, interrupt_after
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.cache import PackedCache

NOBODY = 65534
SPECS = {0: LayerSpec(1, 64, 64), 1: LayerSpec(1, 64, 64)}


def cache_of(key: str = "key", origin: str = "/a") -> PackedCache:
    return PackedCache(key, SPECS, origin=origin)


def save(cache: PackedCache) -> None:
    cache.save({index: ExpertLayer(spec) for index, spec in SPECS.items()})


def assert_refused(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """No layers, nothing written, one line, however often."""
    for _ in range(2):
        caplog.clear()
        cache = cache_of()
        with caplog.at_level(logging.WARNING, "trimoe"):
            assert cache.load() is None
            save(cache)
        (record,) = caplog.records
        for word in ("trimoe: expected ", "; try ", str(cache.path), *words):
            assert word in record.getMessage()
        assert "\n" not in record.getMessage()


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("mode", [0o664, 0o666, 0o606, "another user"])
def test_what_others_can_have_written_is_refused(
    mode: int | str,
    what: str,
    private_cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trimoe.own_files._is_private", lambda group: False)  # whoever runs the test
    save(cache_of())
    path = cache_of().path if what == "file" else private_cache
    before = cache_of().path.read_bytes()
    if isinstance(mode, int):
        mode |= 0o111 if what == "folder" else 0
        path.chmod(mode)
        assert_refused(caplog, f"got a {what} that others may write to (mode {mode:o}; chmod go-w)")
    else:
        give_to(monkeypatch, path)
        assert_refused(caplog, f"got a {what} of another user (uid 12345)")
    assert cache_of().path.read_bytes() == before and len(os.listdir(private_cache)) == 1
    monkeypatch.undo()
    monkeypatch.setenv("TRIMOE_CACHE", str(private_cache))
    path.chmod(0o700)
    assert cache_of().load() is not None


def test_new_folders_and_files_are_for_this_user(private_cache: Path) -> None:
    before = os.umask(0)
    try:
        save(cache_of())
    finally:
        os.umask(before)
    assert stat.S_IMODE(private_cache.stat().st_mode) == 0o700
    assert not stat.S_IMODE(cache_of().path.stat().st_mode) & 0o022
    assert cache_of().load() is not None


def small_model(write_checkpoint: Callable[..., Path]) -> Path:
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": 2, "num_experts_per_tok": 1}
    names, prefix = ("gate_proj", "up_proj", "down_proj"), "model.layers.0.mlp.experts"
    tensors = {f"{prefix}.{e}.{name}.weight": ("BF16", (64, 64)) for e in range(2) for name in names}
    return write_checkpoint(config, {"model.safetensors": tensors})


AS_USER = """
import os, sys
from support import fill_cache
os.setuid(int(sys.argv.pop(1)))
fill_cache.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(("writer", "reader", "from_cache"), [(0, NOBODY, True), (NOBODY, 0, False)])
def test_what_root_packed_serves_users_and_not_the_other_way_round(
    writer: int, reader: int, from_cache: bool, write_checkpoint: Callable[..., Path]
) -> None:
    """What root packed serves everybody who may read it; what a user packed is nothing to root."""
    with tempfile.TemporaryDirectory() as folder:  # everybody may go there
        shutil.copytree(small_model(write_checkpoint), f"{folder}/model")
        os.chmod(folder, 0o755)
        os.chown(folder, writer, -1)

        def run(uid: int) -> dict[str, object]:
            done = subprocess.run(
                [sys.executable, "-c", AS_USER, str(uid), f"{folder}/model"],
                env={**os.environ, "TRIMOE_CACHE": f"{folder}/cache", "PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            return {**json.loads(done.stdout), "err": done.stderr}

        assert not run(writer)["from_cache"] and run(writer)["from_cache"]
        os.chmod(f"{folder}/cache", 0o755)
        result = run(reader)
        assert (result["from_cache"], result["err"] == "") == (from_cache, from_cache)
        assert run(writer)["contents"] == result["contents"]


def odd(path: Path, kind: str, precious: Path) -> None:
    """Something else than a file of ours at `path`."""
    precious.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(precious.with_name("new"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("of another program")


ODD = ["pipe", "link", "dangling link", "folder", "socket", "device", "file"]


@pytest.mark.parametrize("kind", ODD)
def test_a_file_that_is_something_else(
    kind: str, private_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private_cache.mkdir(mode=0o700)
    odd(cache_of().path, kind, tmp_path / "precious")
    before = os.lstat(cache_of().path)
    assert_refused(caplog)
    assert os.path.samestat(os.lstat(cache_of().path), before)
    assert sorted(os.listdir(tmp_path)) == ["packed-cache", "precious"]
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["key.part", "other.part", "mine.part"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_leftover_of_ours_stays(
    kind: str, name: str, private_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private_cache.mkdir(mode=0o700)
    odd(private_cache / name, kind, tmp_path / "precious")
    before = os.lstat(private_cache / name)
    cache = cache_of()
    assert cache.load() is None
    save(cache)
    assert os.path.samestat(os.lstat(private_cache / name), before)
    assert sorted(os.listdir(tmp_path)) == ["packed-cache", "precious"]
    assert (tmp_path / "precious").read_text() == "precious"
    assert cache.path.exists() == (name != "key.part")


def test_a_link_to_the_cache_folder_is_followed(private_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    private_cache.symlink_to("there")
    save(cache_of())
    assert cache_of().load() is not None and os.listdir(tmp_path / "there") == ["key.experts"]


def test_the_file_of_a_dead_writer_goes_and_that_of_another_user_stays(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_cache.mkdir(mode=0o700)
    for name in ("mine.part", "empty.part", "theirs.part"):
        (private_cache / name).write_bytes(
            b"" if name == "empty.part" else b"trimoe packed 2\n" + bytes(5000)
        )
    give_to(monkeypatch, private_cache / "theirs.part")
    save(cache_of())
    assert sorted(os.listdir(private_cache)) == ["key.experts", "theirs.part"]


def test_an_interrupt_as_soon_as_the_file_is_there(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_cache.mkdir(mode=0o700)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, "open", cache_of().path.with_suffix(".part").name)
        save(cache_of())
    assert os.listdir(private_cache) == []


def test_an_older_file_of_another_user_stays(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache_of("old"))
    give_to(monkeypatch, private_cache / "old.experts")
    save(cache_of("new"))
    assert sorted(os.listdir(private_cache)) == ["new.experts", "old.experts"]


def test_the_time_of_a_file_is_that_of_its_last_use(private_cache: Path) -> None:
    save(cache_of())
    os.utime(cache_of().path, (1, 1))
    assert cache_of().load() is not None
    assert cache_of().path.stat().st_mtime > 1


def test_a_file_without_its_checksums_is_not_whole(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the writer of a .part file had done when it was killed, and whoever renamed it then."""
    pwrite, stages = os.pwrite, []

    def recorded(descriptor: int, data: bytes, offset: int) -> int:
        written = pwrite(descriptor, data, offset)
        stages.append((private_cache / "key.part").read_bytes())
        return written

    monkeypatch.setattr(os, "pwrite", recorded)
    save(cache_of())
    whole = cache_of().path.read_bytes()
    assert len(stages) == 2 + len(SPECS) + 1 and stages[-1] == whole
    for stage in stages[:-1]:
        cache_of().path.write_bytes(stage)
        assert cache_of().load() is None
    cache_of().path.write_bytes(whole)
    assert cache_of().load() is not None


NO_FOLDER = {"HOME": None, "TRIMOE_CACHE": None, "XDG_CACHE_HOME": None}
ODD_PLACES: dict[str, tuple[dict[str, str | None], str | None]] = {
    "no such user": ({"TRIMOE_CACHE": "~no-such-user/x"}, "the home of no user"),
    "no home": (NO_FOLDER, "neither HOME nor TRIMOE_CACHE"),
    "a file": ({"TRIMOE_CACHE": "{tmp}/file"}, "Not a directory"),
    "below a file": ({"TRIMOE_CACHE": "{tmp}/file/x"}, "File exists"),
    "a pipe": ({"TRIMOE_CACHE": "{tmp}/pipe"}, "Not a directory"),
    "a device": ({"TRIMOE_CACHE": "/dev/null"}, ""),
    "no permission": ({**NO_FOLDER, "HOME": "{tmp}/closed"}, "Permission denied"),
    "proc": ({"TRIMOE_CACHE": "/proc/self/x"}, ""),
    "too long": ({"TRIMOE_CACHE": "{tmp}/" + 300 * "x"}, "File name too long"),
    "link to itself": ({"TRIMOE_CACHE": "{tmp}/loop"}, ""),
    "not UTF-8": ({"TRIMOE_CACHE": "{tmp}/\udcff"}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ODD_PLACES)
def test_a_model_runs_wherever_the_cache_cannot_be(
    place: str, write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """One line says so; whatever lies there stays."""
    changes, said = ODD_PLACES[place]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "closed").mkdir(mode=0o555)
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.format(tmp=tmp_path)
    code = "import pwd; from support import fill_cache; fill_cache.main()"
    if place == "no home":
        code = code.replace(";", "; pwd.getpwuid = lambda _: {}['unknown'];", 1)
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_model(write_checkpoint))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=drop_file_capabilities,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["from_cache"] is False
    if said is None:
        assert done.stderr == ""
    else:
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("trimoe: expected "), done.stderr
        assert said in done.stderr and "; try " in done.stderr
    assert (tmp_path / "file").read_text() == "precious" and os.listdir(tmp_path / "closed") == []
