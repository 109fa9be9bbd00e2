"""Hardware profiles: every figure has a source, and each way to be bad gets one line that names it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile, parse_profile, profile_names
from trimoe.ndp import Fleet

NAMES = (
    *("a100-8452y", "a6000-5220r10", "h100-8452y", "h100-8470-ndp16", "l4"),
    *("rtx4090-13900k-ndp8", "rtx6000ada-8452y", "t4"),
)


def figures(node: Any, path: str = "") -> dict[str, Any]:
    """Every number in a profile by its path, found without the reader."""
    if isinstance(node, dict):
        return {k: v for key, one in node.items() for k, v in figures(one, f"{path}.{key}").items()}
    return {path: node} if isinstance(node, int | float) else {}


def test_the_shipped_profiles_are_read() -> None:
    assert profile_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source(name: str) -> None:
    profile = load_profile(name)
    numbers = {path.strip(".").removesuffix(".value") for path in figures(profile.as_dict())}
    assert numbers <= set(profile.sources)
    assert all(len(source) > 5 for source in profile.sources.values())
    assert profile.name == name
    assert parse_profile(profile.as_dict(), "again") == profile


def test_what_papers_state_is_there() -> None:
    tri = load_profile("h100-8470-ndp16")
    assert tri.ndp is not None and tri.pcie is not None and tri.gpu is not None
    assert (tri.ndp.dimms, tri.cpu.cores, tri.memory.channels, tri.pcie.h2d_gbps) == (16, 52, 8, 64)
    assert (tri.gpu.memory_bytes, tri.gpu.peak_tflops["bf16"], tri.n_dimms) == (80 << 30, 756, 16)
    assert {"ndp.tflops", "ndp.ranks", "ndp.link_gbps"} <= set(tri.assumptions)
    assert not {"ndp.dimms", "cpu.cores", "pcie.h2d_gbps"} & set(tri.assumptions)
    plain = load_profile("rtx6000ada-8452y")
    assert (plain.ndp, plain.n_dimms) == (None, 8)
    assert plain.memory.stream_gbps * 8 == pytest.approx(220, abs=1), "as measured on that CPU"


def test_a_path_works_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**load_profile("l4").as_dict(), "name": "mine"}))
    assert load_profile(file).name == load_profile(str(file)).name == "mine"


def test_other_values_take_the_place_of_figures() -> None:
    profile = load_profile("h100-8470-ndp16")
    other = profile.with_values({"ndp.tflops": 0.25, "ndp.sharing": "concurrent"}, "a sweep")
    assert other.ndp is not None and (other.ndp.tflops, other.ndp.sharing) == (0.25, "concurrent")
    assert other.sources["ndp.tflops"] == "assumption: a sweep"
    assert profile == load_profile("h100-8470-ndp16")
    for path in ("ndp.tflop", "gpu", "gpu.peak_tflops.fp99", "name"):
        with pytest.raises(InputError, match=f"got {path};"):
            profile.with_values({path: 1}, "a sweep")
    with pytest.raises(InputError, match=r"ndp\.tflops; got -1"):
        profile.with_values({"ndp.tflops": -1}, "a sweep")


def test_emulated_dimms_take_the_place_of_a_gpu() -> None:
    plain = load_profile("h100-8452y")
    found = plain.with_dimms(16)
    assert found.ndp is not None and found.gpu is found.pcie is None
    assert (found.n_dimms, found.ndp.dimms_per_channel) == (16, 2)
    assert (found.cpu, found.memory) == (plain.cpu, plain.memory)
    assert found.name == "h100-8452y, no GPU, 16 emulated DIMM-NDPs"
    assert {one for one in found.sources if one.startswith("ndp.")} <= set(found.assumptions)
    # As the emulated DIMMs of this program are.
    fleet = {name: one.default for name, one in inspect.signature(Fleet).parameters.items()}
    names = {"ranks": "ranks", "tflops": "tflops", "buffer_kib": "buffer_kib", "link_gbps": "link_gbps"}
    names |= {"speed_grade": "spec", "sharing": "mode"}
    assert {name: getattr(found.ndp, name) for name in names} == {a: fleet[b] for a, b in names.items()}
    alone = found.with_dimms(0)
    assert (alone.gpu, alone.ndp, alone.cpu) == (None, None, plain.cpu)
    assert alone.name.endswith("no GPU")
    for dimms in (4, 12, -8):
        with pytest.raises(InputError, match=f"{dimms}"):
            plain.with_dimms(dimms)
    raw = plain.as_dict()
    raw["memory"]["channels"]["value"] = 1  # as after `trimoe calibrate`
    assert parse_profile(raw, "one").with_dimms(250).n_dimms == 250


def test_unknown_names_and_machines_not_calibrated_are_one_line() -> None:
    with pytest.raises(InputError, match=r"h100-8470-ndp16.*got h200"):
        load_profile("h200")
    with pytest.raises(InputError, match="trimoe calibrate"):
        load_profile("this-machine")
