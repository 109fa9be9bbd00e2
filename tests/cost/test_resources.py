"""Resources have one number each, and DIMMs are on the channels that the profile says."""

from __future__ import annotations

import pytest

from trimoe.cost.resources import Resources
from trimoe.hardware.profile import load_profile


@pytest.mark.parametrize("profile", ["h100-8470-ndp16", "rtx4090-13900k-ndp8", "t4"])
def test_every_resource_is_named_once_by_its_number(profile: str) -> None:
    machine = load_profile(profile)
    found = Resources(machine)
    assert len(found) == len(found.names) == len(set(found.names))
    named = [found.names[one] for one in (found.gpu, found.h2d, found.d2h, found.cpu, found.link)]
    assert named == ["gpu", "h2d", "d2h", "cpu", "link"]
    assert [found.names[found.channel(one)] for one in range(found.n_channels)] == [
        f"channel{one}" for one in range(machine.memory.channels)
    ]
    assert [found.names[found.dimm(one)] for one in range(found.n_dimms)] == [
        f"dimm{one}" for one in range(machine.ndp.dimms if machine.ndp else 0)
    ]


def test_neighbouring_dimms_share_a_channel() -> None:
    found = Resources(load_profile("h100-8470-ndp16"))
    assert [found.names[found.channel_of(dimm)] for dimm in (0, 1, 2, 15)] == [
        "channel0", "channel0", "channel1", "channel7",
    ]  # fmt: skip


def test_plain_memory_has_one_place_by_channel() -> None:
    found = Resources(load_profile("t4"))
    assert found.n_dimms == 0
    assert [found.channel_of(place) for place in range(found.n_channels)] == [
        found.channel(one) for one in range(found.n_channels)
    ]
