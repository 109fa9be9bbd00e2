"""One part more: exactly these figures change, each as an assumption, and costs follow."""

from __future__ import annotations

from typing import Any

import pytest

from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU
from trimoe.hardware.profile import Profile, load_profile, parse_profile, profile_names
from trimoe.simulator.upgrades import Upgrade, upgrades


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Values by path."""
    if isinstance(node, dict) and "value" in node:
        return {path: node["value"]}
    if isinstance(node, dict):
        return {
            name: value
            for key, one in node.items()
            for name, value in flat(one, f"{path}.{key}" if path else key).items()
        }
    return {path: node}


def by_name(profile: Profile) -> dict[str, Upgrade]:
    return {one.name: one for one in upgrades(profile)}


def cost(profile: Profile | None) -> CostModel:
    assert profile is not None
    return CostModel(profile, load_model_shape("qwen3-30b-a3b"))


@pytest.mark.parametrize("name", profile_names())
def test_what_is_said_is_what_changes(name: str) -> None:
    profile = load_profile(name)
    found = upgrades(profile)
    assert [one.name for one in found] == ["gpu", "dimm-ndp", "cpu-socket"]
    for one in found:
        assert one.profile is not None, one.why_not
        before, after = flat(profile.as_dict()), flat(one.profile.as_dict())
        different = {
            path: (before.get(path), value) for path, value in after.items() if before.get(path) != value
        }
        assert different.pop("name") == (name, f"{name} + {one.name}")
        assert different == dict(one.changes) and not set(before) - set(after)
        figures = set(different) - {"gpu.name", "cpu.name"}
        assert figures <= set(one.profile.assumptions)
        assert {one.profile.sources[path] for path in figures} == {f"assumption: trimoe plan: {one.about}"}


def test_a_second_gpu_doubles_its_rates() -> None:
    profile = load_profile("h100-8470-ndp16")
    gpu = by_name(profile)["gpu"]
    assert gpu.changes["gpu.memory_bytes"] == (85899345920, 2 * 85899345920)
    assert gpu.changes["pcie.h2d_gbps"] == (64, 128)
    one, two = cost(profile), cost(gpu.profile)
    assert two.expert_ns(GPU, 500, resident=True) == pytest.approx(one.expert_ns(GPU, 500, resident=True) / 2)
    assert two.expert_ns(CPU, 5) == one.expert_ns(CPU, 5)


def test_a_second_socket_brings_channels_and_dimms() -> None:
    profile = load_profile("h100-8470-ndp16")
    more = by_name(profile)["cpu-socket"].profile
    assert more is not None and more.ndp is not None
    assert (more.memory.channels, more.ndp.dimms, more.ndp.dimms_per_channel) == (16, 32, 2)
    assert cost(more).expert_ns(CPU, 1) == pytest.approx(cost(profile).expert_ns(CPU, 1) / 2)
    assert cost(more).expert_ns(CPU, 900) == pytest.approx(cost(profile).expert_ns(CPU, 900) / 2)


def test_dimms_with_cores_bring_places_and_bytes() -> None:
    more = by_name(load_profile("h100-8470-ndp16"))["dimm-ndp"].profile
    assert more is not None and more.ndp is not None
    assert (more.ndp.dimms, more.ndp.dimms_per_channel) == (24, 3)
    assert more.memory.capacity_bytes == 24 * 2**36
    plain = load_profile("a6000-5220r10")
    found = by_name(plain)["dimm-ndp"]
    assert found.profile is not None and found.profile.ndp is not None
    assert found.profile.ndp.dimms == plain.memory.channels and found.changes["ndp.dimms"][0] is None
    assert found.profile.memory == plain.memory
    assert cost(found.profile).expert_ns(FIRST_DIMM, 1, 0) > 0


def measured(profile: Profile) -> Profile:
    """Without a GPU, and with a measured table."""
    raw = profile.as_dict()
    row = {"domain": "cpu", "weights": "bf16", "hidden": 2048, "inter": 768, "tokens": [1, 64]}
    raw["tables"] = [{**row, "ns": [1e6, 2e6], "source": "a test"}]
    return parse_profile({name: one for name, one in raw.items() if name not in ("gpu", "pcie")}, "a test")


def test_measured_tables_are_halved_and_a_first_gpu_is_named() -> None:
    found = by_name(measured(load_profile("a6000-5220r10")))
    more = found["cpu-socket"].profile
    assert more is not None
    assert more.tables[0].ns == (5e5, 1e6)
    assert "tables[0]" in more.assumptions and found["cpu-socket"].changes["tables[0].ns"]
    gpu = found["gpu"]
    assert gpu.profile is not None and gpu.profile.gpu == load_profile("l4").gpu
    assert "as in profile l4" in gpu.about and gpu.profile.tables[0].ns == (1e6, 2e6)


def test_what_would_be_absurd_says_so() -> None:
    wide = load_profile("h100-8470-ndp16").with_values(
        {"ndp.dimms_per_channel": 256, "ndp.dimms": 2048, "memory.channels": 8}, "a test"
    )
    found = by_name(wide)["dimm-ndp"]
    assert found.profile is None and "ndp.dimms_per_channel; got 257" in found.why_not
