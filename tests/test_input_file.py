"""What the user's files may be: nothing that makes a reader wait or read without end."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.command_line import drop_file_capabilities, run_without_torch
from support.shipped_model import SHIPPED
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.json_file import read_json_object
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.errors import InputError
from trimoe.hardware.profile_reader import read_json
from trimoe.input_file import open_input, read_input, read_lines
from trimoe.store.packed_folder import PackedFolder
from trimoe.trace import read_trace

PACKAGE = Path(__file__).parents[1] / "python" / "trimoe"


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """A reader that waits for a pipe is ended, and fails its test."""

    def stop(*_: object) -> None:
        raise AssertionError("a reader waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(path: Path, kind: str) -> None:
    """Something at `path` that is no regular file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to("pipe")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    elif kind == "link to itself":
        path.symlink_to(path.name)


KINDS = {
    "folder": "got a folder; try asking",
    "pipe": "got a named pipe; try asking",
    "link to a pipe": "got a named pipe; try asking",
    "socket": "got a socket; try asking",
    "device": "got a device; try asking",
    "link to nothing": "got a link to nothing; try asking",
    "link to itself": "got Too many levels of symbolic links; try asking",
    "nothing": "got no such file; try asking",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_line(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "a", kind)
    with pytest.raises(InputError) as caught:
        open_input(tmp_path / "a", "a poem", "asking")
    assert str(caught.value) == f"expected a poem; {KINDS[kind]}"


def test_a_path_that_is_none() -> None:
    with pytest.raises(InputError, match="null"):
        open_input("a\0b", "a poem", "asking")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    code = "import sys; from trimoe.input_file import open_input; open_input(sys.argv[1], 'a poem', 'asking')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        preexec_fn=drop_file_capabilities,
    )
    assert "expected a poem; got Permission denied; try checking the permissions (ls -l /" in done.stderr


def test_a_pipe_that_takes_the_place_of_a_file_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    os.mkfifo(tmp_path / "b")
    regular = os.stat(tmp_path / "a")
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(InputError, match="got a named pipe"):
        open_input(tmp_path / "b", "a poem", "asking")


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    assert len(read_input(tmp_path / "a", "a poem", "asking", 1000)) == 1000
    with pytest.raises(InputError, match=r"a poem, at most 999 B; got a longer .*; try asking"):
        read_input(tmp_path / "a", "a poem", "asking", 999)


def test_lines_are_read_without_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é\n \n\ntwo".encode())
    assert read_lines(tmp_path / "a", "asking") == ["é", "two"]
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(InputError, match="a text file in UTF-8"):
        read_lines(tmp_path / "a", "asking")


def checkpoint_with(name: str) -> Callable[[Path], object]:
    """A reader of a whole checkpoint where this file is not as it should be."""

    def read(path: Path) -> object:
        folder = path.parent / "checkpoint"
        folder.mkdir()
        for one in SHIPPED.iterdir():
            if one.name != name and one.is_file():
                (folder / one.name).symlink_to(one)
        path.rename(folder / name)
        return Checkpoint(folder)

    return read


def shape_of(path: Path) -> object:
    path.rename(path.parent / "config.json")
    return load_model_shape(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "JSON": read_json_object,
    "shape": shape_of,
    "profile": read_json,
    "safetensors": SafetensorsFile,
    "packed folder": PackedFolder,
    "trace": read_trace,
    "prompts": lambda path: read_lines(path, "asking"),
    **{
        name: checkpoint_with(name)
        for name in (
            *("config.json", "model.safetensors", "model.safetensors.index.json"),
            *("tokenizer.json", "generation_config.json", "chat_template.jinja"),
        )
    },
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_no_reader_waits_or_reads_without_end(kind: str, reader: str, tmp_path: Path) -> None:
    make(tmp_path / "a", kind)
    with pytest.raises(InputError) as caught:
        READERS[reader](tmp_path / "a")
    words = {"pipe": "a named pipe", "device": "a device", "socket": "a socket"}
    assert words[kind] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["generate", "{folder}"],
        ["inspect", "{folder}"],
        ["pack", "{folder}"],
        ["plan", "--model", "{folder}"],
        ["plan", "--hardware", "{folder}/config.json"],
        ["trace", "stats", "{folder}/config.json"],
        ["trace", "record", "--prompts", "{folder}/config.json", "--output", "{folder}/out"],
        ["policy", "stratify", "--prompts", "{folder}/config.json"],
        ["simulate", "--trace", "{folder}/config.json"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_no_command_waits_for_a_pipe(command: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    arguments = [word.format(folder=tmp_path) for word in command]
    run_without_torch(arguments, tmp_path / "..").assert_one_line()


# Beside input_file itself: what the system offers, standard output, and what is written.
OPENERS = {
    "input_file.py",
    "hardware/proc.py",
    "cli/streams.py",
    "descriptors.py",
    "store/cache.py",
    "store/folder_writer.py",
    "store/new_folder.py",
    "own_files.py",
    "atomic_file.py",
}
OPENING = re.compile(r"open|os\.open|np\.load|shutil\.copy.*|.*\.(read_text|read_bytes)|\w*path\.open")


@pytest.mark.slow
def test_nothing_else_opens_files() -> None:
    openers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and OPENING.fullmatch(ast.unparse(node.func))
    }
    assert openers <= OPENERS
    assert "input_file.py" in openers  # the rule finds what it looks for
