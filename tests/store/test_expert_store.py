"""The expert store: what the cache is keyed by, and how errors and Ctrl-C come out of packing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.fill_cache import contents, open_store
from trimoe import _cpu
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.experts.reader import ExpertReader
from trimoe.errors import FailureError, InputError
from trimoe.hardware.machine import Memory
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.layer.source import ExpertSource
from trimoe.store import expert_store as store_module
from trimoe.store.expert_store import ExpertStore

E, H, I = 6, 64, 40  # noqa: E741


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": E, "num_experts_per_tok": 2}
    shapes = {"gate_proj": (I, H), "up_proj": (I, H), "down_proj": (H, I)}
    tensors = {
        f"model.layers.{layer}.mlp.experts.{expert}.{matrix}.weight": ("BF16", shape)
        for layer in range(2)
        for expert in range(E)
        for matrix, shape in shapes.items()
    }
    return write_checkpoint(config, {"model.safetensors": tensors})


def cached_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_no_thread_stays() -> None:
    """Ctrl-C may come while a thread is being started; the store does not wait for that one, but it ends."""
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("trimoe-pack") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def flip_a_bit(checkpoint: Path) -> None:
    with open(checkpoint / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def flip_a_bit_and_hide_it(checkpoint: Path) -> None:
    """Same size and time: the content itself must count."""
    before = (checkpoint / "model.safetensors").stat()
    flip_a_bit(checkpoint)
    os.utime(checkpoint / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(checkpoint: Path) -> None:
    before = (checkpoint / "model.safetensors").stat()
    os.utime(checkpoint / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def change_config(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "gpt_oss"}))


@pytest.mark.parametrize("change", [flip_a_bit, flip_a_bit_and_hide_it, touch, change_config])
def test_a_checkpoint_that_changed_is_packed_anew(
    change: Callable[[Path], None], checkpoint: Path, private_cache: Path
) -> None:
    before = open_store(checkpoint)
    change(checkpoint)
    after = open_store(checkpoint)
    assert not after.from_cache
    changed_weights = change in (flip_a_bit, flip_a_bit_and_hide_it)
    assert (contents(after) != contents(before)) == changed_weights
    assert contents(after) == contents(open_store(checkpoint, use_cache=False))
    assert open_store(checkpoint).from_cache
    assert len(cached_files(private_cache)) == 1  # that of the old content is gone


def test_each_spec_has_its_own_cache_file(checkpoint: Path, private_cache: Path) -> None:
    variants: list[tuple[ExpertMath, str]] = [
        (ExpertMath(), "bf16"),
        (ExpertMath(), "fp32"),
        (ExpertMath("gelu"), "bf16"),
        (ExpertMath(alpha=2.0), "bf16"),
        (ExpertMath(limit=3.0), "bf16"),
    ]
    for math, weights in variants:
        assert not ExpertStore.open(checkpoint, {0: math, 1: math}, packing=Packing(weights)).from_cache
    assert len(cached_files(private_cache)) == len(variants)
    for math, weights in variants:
        store = ExpertStore.open(checkpoint, {0: math, 1: math}, packing=Packing(weights))
        assert store.from_cache
        assert {layer.spec.weights for layer in store.layers.values()} == {weights}
        assert {layer.spec.activation for layer in store.layers.values()} == {math.activation}


def test_another_layout_version_is_another_cache(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(checkpoint).close()
    monkeypatch.setattr(_cpu, "LAYOUT_VERSION", _cpu.LAYOUT_VERSION + 1)
    assert not open_store(checkpoint).from_cache


def test_auto_is_the_format_of_the_checkpoint(checkpoint: Path) -> None:
    open_store(checkpoint, packing=Packing("bf16")).close()
    assert open_store(checkpoint, packing=Packing("auto")).from_cache


def test_no_cache_neither_reads_nor_writes(checkpoint: Path, private_cache: Path) -> None:
    open_store(checkpoint, use_cache=False).close()
    assert cached_files(private_cache) == []
    open_store(checkpoint).close()
    assert not open_store(checkpoint, use_cache=False).from_cache


def test_sizes_and_progress_add_up(checkpoint: Path) -> None:
    done: list[int] = []
    totals: set[int] = set()

    def progress(done_bytes: int, total_bytes: int) -> None:
        done.append(done_bytes)
        totals.add(total_bytes)

    store = open_store(checkpoint, use_cache=False, progress=progress)
    assert totals == {store.source_bytes}
    assert len(done) == 2 * E
    assert sum(done) == store.source_bytes == 2 * E * 3 * H * I * 2
    assert store.packed_bytes == sum(len(layer.memory) for layer in store.layers.values())
    assert not store.from_cache and store.load_ns > 0


def test_an_error_in_a_packing_thread_comes_out_as_it_is(
    checkpoint: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one, packed = store_module._pack_one, []

    def fails_at_the_third(
        layer: ExpertLayer, expert: int, source: ExpertSource, reader: ExpertReader
    ) -> int:
        assert threading.current_thread() is not threading.main_thread()
        if expert == 2:
            raise FailureError(expected="a disk that reads", got="none", hint="another disk")
        packed.append(expert)
        return pack_one(layer, expert, source, reader)

    monkeypatch.setattr(store_module, "_pack_one", fails_at_the_third)
    with pytest.raises(FailureError, match="a disk that reads"):
        open_store(checkpoint)
    assert len(packed) < 2 * (E - 1)  # the second layer's experts were not begun, or not all
    assert_no_thread_stays()
    assert cached_files(private_cache) == []


@pytest.mark.parametrize("moment", ["packing", "writing"])
def test_ctrl_c_leaves_nothing_behind(
    moment: str, checkpoint: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(open_store(checkpoint, use_cache=False))
    where, name = (store_module, "_pack_one") if moment == "packing" else (os, "pwrite")
    function, calls = getattr(where, name), itertools.count()

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(where, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_store(checkpoint)
    assert cached_files(private_cache) == []
    assert_no_thread_stays()
    for from_cache in (False, True):
        store = open_store(checkpoint)
        assert (store.from_cache, contents(store)) == (from_cache, expected)


@pytest.mark.parametrize("weights", ["int8", "int4", "fp8", "mxfp4"])
def test_a_number_that_the_format_cannot_hold_is_named(
    weights: str, checkpoint: Path, private_cache: Path
) -> None:
    """The random bytes of this checkpoint hold NaN; bf16 keeps them, and the router's check finds others."""
    with pytest.raises(InputError, match=r"finite weights.*NaN or infinity .*experts\.\d+\.up_proj.*bf16"):
        open_store(checkpoint, packing=Packing(weights))
    assert cached_files(private_cache) == []
    assert_no_thread_stays()


def test_too_little_memory_is_told_before_packing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "memory", lambda: Memory(10**9, 1000, None))
    monkeypatch.setattr(store_module, "_pack_all", None)
    with pytest.raises(FailureError, match="of free memory"):
        open_store(checkpoint)


@pytest.mark.parametrize(
    ("math", "match"),
    [
        ({0: ExpertMath(), 7: ExpertMath()}, r"take over: \[0, 1\]; got .* \[0, 7\]"),
        ({0: ExpertMath()}, r"take over: \[0, 1\]; got .* \[0\]"),
        ({}, r"got .* \[\]"),
        ({0: ExpertMath(gated=False), 1: ExpertMath()}, "gate=False"),
        ({0: ExpertMath(bias=True), 1: ExpertMath()}, "bias=True"),
    ],
)
def test_a_model_that_does_not_fit_its_files(
    math: dict[int, ExpertMath], match: str, checkpoint: Path, private_cache: Path
) -> None:
    with pytest.raises(InputError, match=match):
        ExpertStore.open(checkpoint, math)
    assert cached_files(private_cache) == []
