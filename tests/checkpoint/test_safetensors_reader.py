"""The reader: the right bytes of every tensor, and one clear error for every broken file."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support.safetensors_files import assert_refused, content, memory, raw_file
from trimoe.checkpoint.safetensors_header import VIEW_DTYPES
from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.errors import FailureError, InputError

SPECS = {"a": ("F32", (3, 5)), "b": ("BF16", (4, 2, 2)), "scalar": ("I64", ()), "empty": ("F16", (0, 7))}


def test_reads_what_the_reference_implementation_writes(tmp_path: Path) -> None:
    tensors = {
        "f32": torch.randn(3, 5),
        "bf16": torch.randn(7, 2).bfloat16(),
        "f16": torch.randn(2, 3, 4).half(),
        "fp8": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "int": torch.arange(6),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert set(file.tensors) == set(tensors)
        assert file.metadata == {"format": "pt"}
        names = {"f32": "F32", "bf16": "BF16", "f16": "F16", "fp8": "F8_E4M3", "int": "I64", "bool": "BOOL"}
        for name, dtype in names.items():
            found = file.tensors[name]
            assert (found.dtype, found.shape) == (dtype, tuple(tensors[name].shape))
            want = tensors[name].contiguous().view(torch.uint8).numpy().tobytes()
            assert content(file, name) == want
            if dtype in VIEW_DTYPES:
                view = file.view(name)
                assert (view.shape, view.strides) == (found.shape, tensors[name].stride())
                assert memory(view) == want
        assert content(file, "empty") == b"" == memory(file.view("empty"))


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_data_is_read_at_any_address(tmp_path: Path, write_safetensors: Any, pad: int) -> None:
    contents = write_safetensors(tmp_path / "x.safetensors", SPECS, pad=pad)
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        for name, (dtype, shape) in SPECS.items():
            entry = file.tensors[name]
            assert (entry.dtype, entry.shape, content(file, name)) == (dtype, shape, contents[name])


def test_a_part_of_a_stack_is_a_view(tmp_path: Path, write_safetensors: Any) -> None:
    contents = write_safetensors(tmp_path / "x.safetensors", SPECS)
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        part = file.view("b")[3]
        assert (part.name, part.shape, memory(part)) == ("b[3]", (2, 2), contents["b"][24:])
        for index in (-1, 4):
            with pytest.raises(IndexError):
                file.view("b")[index]
        with pytest.raises(IndexError):
            file.view("b")[3][1][0][0]


def test_a_file_without_tensors_opens(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw_file({}))
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert file.tensors == {}


@pytest.mark.slow
def test_views_outlive_the_file(tmp_path: Path, write_safetensors: Any) -> None:
    contents = write_safetensors(tmp_path / "x.safetensors", SPECS)
    file = SafetensorsFile(tmp_path / "x.safetensors")
    view = file.view("a")
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.view("a")
    del file
    gc.collect()
    assert memory(view) == contents["a"]


def open_files(folder: Path) -> list[str]:
    """Descriptors of this process that lead into the folder."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [link for link in links if os.path.islink(link) and os.readlink(link).startswith(str(folder))]


def test_the_file_is_closed_with_the_last_view(tmp_path: Path, write_safetensors: Any) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)
    file = SafetensorsFile(tmp_path / "x.safetensors")
    view = file.view("b")[1]
    file.close()
    assert len(open_files(tmp_path)) == 1
    del view, file
    gc.collect()
    assert not open_files(tmp_path)


def test_nothing_is_mapped_and_the_data_may_be_read_ahead(tmp_path: Path, write_safetensors: Any) -> None:
    contents = write_safetensors(tmp_path / "x.safetensors", SPECS)
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        for name in SPECS:
            assert content(file, name) == contents[name]
        view = file.view("b")
        view.owner.advise_willneed(*view.extent)
        assert memory(view) == contents["b"]
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path, write_safetensors: Any) -> None:
    path = tmp_path / "x.safetensors"
    contents = write_safetensors(path, {"a": ("U8", (100_000,)), "b": ("U8", (100_000,))})
    with SafetensorsFile(path) as file:
        os.truncate(path, file.header_bytes + 150_000)
        assert memory(file.view("a")) == contents["a"]
        view = file.view("b")
        for act in (
            lambda: memory(view),
            lambda: list(file.chunks("b", 10_000)),
            lambda: file.read(0, 200_000),
        ):
            with pytest.raises(FailureError, match=r"as when it was opened; got \d+ bytes: it was shortened"):
                act()


def test_a_disk_that_fails_is_an_error(
    tmp_path: Path, write_safetensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(FailureError, match=r"to read .*x\.safetensors; got Input/output error"):
            memory(file.view("a"))


def test_a_read_may_be_done_in_parts(
    tmp_path: Path, write_safetensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = write_safetensors(tmp_path / "x.safetensors", SPECS)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: preadv(fd, [into[0][:7]], at))
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert {name: content(file, name) for name in SPECS} == contents


def test_read_copies_raw_bytes(tmp_path: Path, write_safetensors: Any) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)
    raw = (tmp_path / "x.safetensors").read_bytes()
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert file.read(0, len(raw)) == raw
        assert file.header_bytes == 8 + int.from_bytes(raw[:8], "little")
        with pytest.raises(FailureError):
            file.read(0, len(raw) + 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.safetensors", "none.safetensors", "no such file")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    assert_refused(tmp_path / "x.safetensors", "a folder")


def test_a_pipe_in_place_of_a_file_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    assert_refused(tmp_path / "x.safetensors", "a named pipe")


def test_an_unreadable_file_is_named(
    tmp_path: Path, write_safetensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)

    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert_refused(tmp_path / "x.safetensors", "Permission denied", "permissions")


def test_a_system_out_of_descriptors_is_no_bad_input(
    tmp_path: Path, write_safetensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)

    def refuse(_: int) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "dup", refuse)
    with pytest.raises(FailureError, match=r"x\.safetensors; got Too many open files; .*ulimit"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_an_unknown_tensor_is_named(tmp_path: Path, write_safetensors: Any) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)
    with SafetensorsFile(tmp_path / "x.safetensors") as file, pytest.raises(InputError, match="'zz'"):
        file.view("zz")


def test_a_view_of_what_no_weights_are(tmp_path: Path, write_safetensors: Any) -> None:
    write_safetensors(tmp_path / "x.safetensors", SPECS)
    told = r"dtype F32, BF16, F16, .* as scalar; got I64"
    with SafetensorsFile(tmp_path / "x.safetensors") as file, pytest.raises(InputError, match=told):
        file.view("scalar")
