"""Whether a model fits, by hand-worked sums, and the bound of its speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.command_line import run_here
from support.shipped_model import SHIPPED
from trimoe.errors import InputError
from trimoe.hardware.machine import Machine, Memory, detect_machine
from trimoe.hardware.roofline import Roofline
from trimoe.measure.fit import best_fit, fit, model_needs
from trimoe.measure.memory_forecast import WORKING_BYTES, predict_memory

GIB = 1 << 30
FORMATS = ("fp32", "bf16", "int8", "int4", "fp8", "mxfp4")
ROOFLINE = Roofline("avx2", 2, 1, (20.0,), dict.fromkeys(FORMATS, (100.0,)))


def machine(total_gib: float, free_gib: float) -> Machine:
    memory = Memory(int(total_gib * GIB), int(free_gib * GIB), None)
    return replace(detect_machine(), memory=memory, last_level_cache_bytes=32 << 20)


def test_a_known_model_has_its_sizes() -> None:
    """Qwen3-30B-A3B: 48 layers of 128 experts of 3 * 2048 * 768 weights, top 8, 4 KV heads of 128."""
    needs = model_needs("qwen3-30b-a3b")
    expert = 3 * 2048 * 768
    assert needs.own == "bf16" and needs.context_bytes == 1000 * 48 * 2 * 4 * (128 + 128)
    embedding = 2 * 151936 * 2048
    assert needs.rest_bytes - needs.rest_read_bytes == embedding
    found = {one.format: one for one in fit(needs, machine(64, 40), ROOFLINE)}
    assert list(found) == ["fp32", "bf16", "int8", "int4 g128", "fp8", "mxfp4"]
    bf16 = found["bf16"]
    assert bf16.expert_bytes == 48 * 128 * 2 * expert
    assert bf16.needed_bytes == bf16.expert_bytes + needs.rest_bytes + needs.context_bytes + WORKING_BYTES
    assert bf16.read_bytes == 48 * 8 * 2 * expert + needs.rest_read_bytes
    assert bf16.at_most_tokens_per_s == pytest.approx(20e9 / bf16.read_bytes)
    assert [(one.fits, one.fits_machine) for one in found.values()] == [
        *[(False, False), (False, True), (True, True), (True, True), (True, True), (True, True)]
    ]


def test_arithmetic_bounds_too() -> None:
    """Plain loops are slower than memory."""
    slow = replace(ROOFLINE, gflops_samples=dict.fromkeys(FORMATS, (0.5,)))
    (bf16,) = (
        one for one in fit(model_needs("qwen3-30b-a3b"), machine(64, 40), slow) if one.format == "bf16"
    )
    assert bf16.at_most_tokens_per_s == pytest.approx(0.5e9 / (2 * 48 * 8 * 3 * 2048 * 768))


@pytest.mark.parametrize(
    ("model", "total", "free", "best"),
    [
        ("qwen3-30b-a3b", 128, 100, ("bf16", True)),
        ("qwen3-30b-a3b", 128, 40, ("int8", True)),
        ("qwen3-30b-a3b", 32, 20, ("int4 g128", True)),
        ("qwen3-30b-a3b", 32, 8, ("int8", False)),
        ("deepseek-v3", 32, 8, None),
    ],
)
def test_the_best_that_fits(model: str, total: float, free: float, best: tuple[str, bool] | None) -> None:
    needs = model_needs(model)
    found = best_fit(needs, fit(needs, machine(total, free), None))
    assert (found and (found.format, found.fits)) == best


def test_a_checkpoint_is_measured_as_it_will_be_loaded() -> None:
    needs = model_needs(str(SHIPPED))
    found = fit(needs, machine(64, 40), ROOFLINE)
    predicted = predict_memory(SHIPPED)
    (own,) = (one for one in found if one.format == needs.own)
    assert (
        own.expert_bytes == predicted.packed_expert_bytes and needs.rest_bytes == predicted.other_weight_bytes
    )
    assert own.read_bytes == own.expert_bytes * 4 // 32 + needs.rest_read_bytes
    # 12 MB stay in a cache of 32 MB: the bandwidth of memory bounds nothing.
    assert [one.at_most_tokens_per_s for one in found] == [None] * 6
    small = replace(machine(64, 40), last_level_cache_bytes=1 << 20)
    assert all((one.at_most_tokens_per_s or 0) > 0 for one in fit(needs, small, ROOFLINE))


def test_a_packed_folder_has_one_format(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "packed"
    command = ["pack", str(SHIPPED), "--format", "int4", "--group", "32", "--output", str(folder)]
    assert run_here(command, capfd).code == 0
    needs = model_needs(str(folder))
    (only,) = fit(needs, machine(64, 40), ROOFLINE)
    assert only.format == needs.own == "int4 g32"
    assert only.expert_bytes == predict_memory(folder).packed_expert_bytes


def test_what_is_neither_a_name_nor_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a model out of .* or a checkpoint folder.*try qwen3-30b-a3b"):
        model_needs("qwen3-30b")
    with pytest.raises(InputError, match="safetensors"):
        (tmp_path / "config.json").write_text("{}")
        model_needs(str(tmp_path))
