"""The memory bound: loading 1.2 GB of experts peaks at the packed bytes + 250 MB; no expert twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import fill_cache
from support.big_checkpoint import write_big_checkpoint

pytestmark = pytest.mark.slow

SLACK_BYTES = 250_000_000
# Runs in a process of its own; the growth is counted from after the imports, which trimoe cannot help.
LOAD = """
import json, sys
import torch, transformers, trimoe, trimoe.hf.load
from transformers.models.qwen3_moe import modeling_qwen3_moe
from trimoe.hardware.memory import peak_rss_bytes, reset_peak_rss, rss_bytes
before_bytes, was_reset = rss_bytes(), reset_peak_rss()
weights = sys.argv[3] if len(sys.argv) > 3 else "auto"
model = trimoe.load(sys.argv[1], cache=len(sys.argv) > 2, weights=weights)
store = model.trimoe_store
print(json.dumps({
    "before_bytes": before_bytes, "peak_rss_bytes": peak_rss_bytes(), "packed_bytes": store.packed_bytes,
    "from_cache": store.from_cache, "load_ns": store.load_ns,
    "parameter_bytes": sum(p.nbytes for p in model.parameters()),
}))
"""
# The same for packing ahead of time, into a folder.
PACK = """
import json, sys
import torch, transformers, trimoe.hf.load, trimoe.store.pack
from trimoe.hardware.memory import peak_rss_bytes, reset_peak_rss, rss_bytes
from trimoe.checkpoint.compute_spec import Packing
math = trimoe.hf.load.read_expert_math(sys.argv[1])
before_bytes, was_reset = rss_bytes(), reset_peak_rss()
report = trimoe.store.pack.pack_to_folder(sys.argv[1], math, Packing("bf16"), sys.argv[2])
print(json.dumps({
    "before_bytes": before_bytes, "peak_rss_bytes": peak_rss_bytes(), "packed_bytes": report.packed_bytes,
}))
"""


@dataclass(frozen=True)
class Big:
    """A checkpoint and the bytes of its experts."""

    path: Path
    expert_bytes: int


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Big]:
    folder = tmp_path_factory.mktemp("big")
    shape = {"hidden": 1024, "inter": 768, "layers": 4, "experts": 64}
    yield Big(folder / "model", write_big_checkpoint(folder / "model", **shape, shard_bytes=500_000_000))
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def no_big_cache_stays(private_cache: Path) -> Iterator[None]:
    yield
    shutil.rmtree(private_cache, ignore_errors=True)


def run(*arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print({name: value for name, value in report.items() if name != "contents"})
    return report


def test_the_store_stays_within_the_bound_and_then_maps_the_cache(big: Big) -> None:
    packed = run(fill_cache.__file__, big.path)
    assert big.expert_bytes == 1_207_959_552 and len(list(big.path.glob("*.safetensors"))) == 3
    assert not packed["torch_imported"] and not packed["from_cache"]
    assert packed["packed_bytes"] == big.expert_bytes  # these sizes need no padding
    assert big.expert_bytes < packed["peak_rss_bytes"] <= packed["packed_bytes"] + SLACK_BYTES
    mapped = run(fill_cache.__file__, big.path)
    assert mapped["from_cache"]
    # Neither the checkpoint's experts nor the cache's were read or copied to get there.
    assert mapped["peak_rss_bytes"] <= SLACK_BYTES
    assert mapped["contents"] == packed["contents"]
    loaded = run("-c", LOAD, big.path, "cache")
    assert loaded["from_cache"] and loaded["packed_bytes"] == big.expert_bytes
    assert loaded["peak_rss_bytes"] - loaded["before_bytes"] <= SLACK_BYTES


def test_a_loaded_model_stays_within_the_bound(big: Big) -> None:
    report = run("-c", LOAD, big.path)
    assert not report["from_cache"]
    assert report["parameter_bytes"] < 50_000_000
    grown_bytes = report["peak_rss_bytes"] - report["before_bytes"]
    assert big.expert_bytes < grown_bytes <= report["packed_bytes"] + SLACK_BYTES


def test_a_smaller_format_peaks_at_its_own_bytes(big: Big) -> None:
    report = run("-c", LOAD, big.path, "cache", "int8")
    assert 0.5 * big.expert_bytes < report["packed_bytes"] < 0.51 * big.expert_bytes
    assert report["peak_rss_bytes"] - report["before_bytes"] <= report["packed_bytes"] + SLACK_BYTES


def test_packing_ahead_of_time_holds_one_layer(big: Big, tmp_path: Path) -> None:
    report = run("-c", PACK, big.path, tmp_path / "out")
    assert report["packed_bytes"] == big.expert_bytes  # of four layers
    assert report["peak_rss_bytes"] - report["before_bytes"] <= big.expert_bytes / 4 + SLACK_BYTES
    mapped = run("-c", LOAD, tmp_path / "out")
    assert mapped["from_cache"] and mapped["packed_bytes"] == big.expert_bytes
    assert mapped["peak_rss_bytes"] - mapped["before_bytes"] <= SLACK_BYTES
    shutil.rmtree(tmp_path / "out")
