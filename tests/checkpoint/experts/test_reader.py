"""Experts on their way into the packed layout: the right bytes, little memory, changing files."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fill_cache import contents, open_store
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath
from trimoe.checkpoint.experts.reader import ExpertReader, file_ranges
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.errors import FailureError
from trimoe.store import expert_store as store_module
from trimoe.store.pack import pack_to_cache

E, H, I = 6, 64, 64  # noqa: E741
CONFIG = {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": E, "num_experts_per_tok": 2}
NAMES = ("gate_proj", "up_proj", "down_proj")


def tensors_of(name: str) -> dict[str, Any]:
    prefix = "model.layers.0.mlp.experts"
    return {f"{prefix}.{e}.{name}.weight": ("BF16", (I, H)) for e in range(E)}


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    """Gates, ups and downs in files of their own, in which they lie at the same places."""
    return write_checkpoint(CONFIG, {f"{name[0]}.safetensors": tensors_of(name) for name in NAMES})


def test_parts_at_the_same_place_of_different_files_are_told_apart(checkpoint: Path) -> None:
    with Checkpoint(checkpoint) as opened:
        expert = find_moe_layers(opened)[0].expert(2)
        ranges = file_ranges(expert)
        assert len(ranges) == 3 and len({part.begin for part in ranges}) < 3
        assert sum(part.nbytes for part in ranges) == 3 * I * H * 2
        with ExpertReader(1).read(expert) as sources:
            for name, source in zip(NAMES, sources, strict=False):
                assert source is not None
                want = opened.read(f"model.layers.0.mlp.experts.2.{name}.weight")
                assert ctypes.string_at(source.address, len(want)) == want
        assert sources[3:] == (None, None, None)


def test_parts_that_touch_or_interleave_are_read_once(write_checkpoint: Callable[..., Path]) -> None:
    """Gate and up of gpt-oss alternate row by row; each expert's part of a stack follows the one before."""
    prefix = "model.layers.0.mlp.experts"
    stacks = {f"{prefix}.gate_up_proj": ("BF16", (E, H, 2 * I)), f"{prefix}.down_proj": ("BF16", (E, I, H))}
    biases = {
        f"{prefix}.gate_up_proj_bias": ("BF16", (E, 2 * I)),
        f"{prefix}.down_proj_bias": ("BF16", (E, H)),
    }
    config = {**CONFIG, "model_type": "gpt_oss", "num_local_experts": E}
    with Checkpoint(write_checkpoint(config, {"model.safetensors": {**stacks, **biases}})) as opened:
        layer = find_moe_layers(opened)[0]
        last = file_ranges(layer.expert(E - 1))
        entries = [opened.entry(name) for name in (*stacks, *biases)]
        ends = sorted(entry.begin + entry.nbytes for entry in entries)
        assert [part.end for part in last] == ends
        assert sorted(part.nbytes * E for part in last) == sorted(entry.nbytes for entry in entries)
        with ExpertReader(1).read(layer.expert(1)) as found:
            whole = np.frombuffer(opened.read(f"{prefix}.gate_up_proj"), "u2").reshape(E, H, 2 * I)[1].T
            assert found.gate is not None
            for view, want in ((found.gate, whole[0::2]), (found.up, whole[1::2])):
                span = view.extent[1] - view.extent[0]
                flat = np.frombuffer(ctypes.string_at(view.address, span), "u2")
                steps = tuple(2 * stride for stride in view.strides)
                assert np.array_equal(np.lib.stride_tricks.as_strided(flat, view.shape, steps), want)


def test_a_buffer_has_one_expert_at_a_time(checkpoint: Path) -> None:
    """As many buffers as there are, whoever asks; a third reader waits."""
    with Checkpoint(checkpoint) as opened:
        layer = find_moe_layers(opened)[0]
        reader, inside, most = ExpertReader(2), set[int](), list[int]()
        lock = threading.Lock()

        def read(expert: int) -> None:
            with reader.read(layer.expert(expert)) as (_, up, *_):
                with lock:
                    assert up.address not in inside
                    inside.add(up.address)
                    most.append(len(inside))
                with lock:
                    inside.remove(up.address)

        threads = [threading.Thread(target=read, args=(index % E,)) for index in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(most) == 24 and max(most) <= 2


def test_a_buffer_is_free_again_after_an_error(checkpoint: Path) -> None:
    with Checkpoint(checkpoint) as opened:
        layer = find_moe_layers(opened)[0]
        reader = ExpertReader(1)
        os.truncate(checkpoint / "u.safetensors", 5000)
        for _ in range(3):
            with pytest.raises(FailureError, match="shortened meanwhile"), reader.read(layer.expert(E - 1)):
                pass


def test_huge_experts_are_packed_by_fewer_threads(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, made = contents(open_store(checkpoint, use_cache=False)), []

    class Recorded(ExpertReader):
        def __init__(self, buffers: int) -> None:
            made.append(buffers)
            super().__init__(buffers)

    monkeypatch.setattr(store_module, "ExpertReader", Recorded)
    monkeypatch.setattr(store_module, "usable_threads", lambda: 8)
    expert_bytes = 3 * I * H * 2
    for limit_bytes, buffers in ((1, 1), (3 * expert_bytes, 3), (2 << 30, 8)):
        monkeypatch.setattr(store_module, "_BUFFER_BYTES", limit_bytes)
        assert contents(open_store(checkpoint, use_cache=False)) == expected
        assert made.pop() == buffers


SHORTEN = """
import os, sys
from support.fill_cache import open_store
from trimoe.errors import FailureError
from trimoe.store import expert_store as store_module

path, calls, pack_one = sys.argv[1], [], store_module._pack_one
def shorten(*arguments):
    calls.append(0)
    if len(calls) == int(sys.argv[2]):
        os.truncate(os.path.join(path, sys.argv[3]), 4096)
    return pack_one(*arguments)
store_module._pack_one = shorten
try:
    open_store(path)
except FailureError as error:
    print(error)
"""


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("name", ["g.safetensors", "d.safetensors"])
def test_a_file_that_is_shortened_while_it_is_packed(
    name: str, call: int, checkpoint: Path, private_cache: Path
) -> None:
    """In a process of its own: what it died of would be SIGBUS."""
    done = subprocess.run(
        [sys.executable, "-c", SHORTEN, str(checkpoint), str(call), name],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert name in done.stdout and "shortened meanwhile" in done.stdout and done.stdout.count("\n") == 1
    assert not private_cache.exists()


def test_packing_ahead_of_a_file_that_is_shortened_leaves_nothing(
    checkpoint: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        store_module, "_check_memory", lambda _: os.truncate(checkpoint / "u.safetensors", 4096)
    )
    with pytest.raises(FailureError, match="shortened meanwhile"):
        pack_to_cache(checkpoint, {0: ExpertMath()}, store_module.Packing())
    assert os.listdir(private_cache) == []
