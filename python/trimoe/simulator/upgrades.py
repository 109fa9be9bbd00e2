"""The same machine with one more part: which figures of its profile change, each by an assumption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trimoe.errors import InputError
from trimoe.hardware.profile import Profile, load_profile, parse_profile

__all__ = ["Upgrade", "upgrades"]

# Whose GPU a machine without one gets, and whose DIMMs one with plain memory.
_GPU_OF, _NDP_OF = "l4", "h100-8470-ndp16"


@dataclass(frozen=True)
class Upgrade:
    """One part more.

    name: for people and JSON. about: what is assumed. changes: (before, after) by path, before None for a
    figure that was not there. profile: the machine then, None where `why_not` says why there is none.
    """

    name: str
    about: str
    changes: Mapping[str, tuple[Any, Any]]
    profile: Profile | None
    why_not: str = ""


def upgrades(profile: Profile) -> tuple[Upgrade, ...]:
    """One more GPU, one more DIMM with a core on every channel, one more CPU socket."""
    return (_more_gpu(profile), _more_ndp(profile), _more_sockets(profile))


def _more_gpu(profile: Profile) -> Upgrade:
    if profile.gpu is None or profile.pcie is None:
        pattern = load_profile(_GPU_OF)
        assert pattern.gpu is not None
        about = f"a {pattern.gpu.name} with its PCIe link, as in profile {_GPU_OF}"
        return _added("gpu", about, profile, {name: pattern.as_dict()[name] for name in ("gpu", "pcie")})
    about = "two GPUs as one with twice the memory, HBM bandwidth, compute and PCIe; no traffic between them"
    gpu, pcie = profile.gpu, profile.pcie
    values: dict[str, float | str] = {
        "gpu.memory_bytes": 2 * gpu.memory_bytes,
        "gpu.memory_gbps": 2 * gpu.memory_gbps,
        "pcie.h2d_gbps": 2 * pcie.h2d_gbps,
        "pcie.d2h_gbps": 2 * pcie.d2h_gbps,
    }
    values |= {f"gpu.peak_tflops.{fmt}": 2 * peak for fmt, peak in gpu.peak_tflops.items()}
    return _scaled("gpu", about, profile, values, table="gpu")


def _more_ndp(profile: Profile) -> Upgrade:
    ndp, memory = profile.ndp, profile.memory
    if ndp is None:
        about = (
            f"a core in one DIMM on every channel, as in profile {_NDP_OF}; "
            "memory is as large and fast as it is"
        )
        section = load_profile(_NDP_OF).as_dict()["ndp"]
        section |= {"dimms": {"value": memory.channels}, "dimms_per_channel": {"value": 1}}
        return _added("dimm-ndp", about, profile, {"ndp": section})
    per_channel = ndp.dimms_per_channel + 1
    about = "one more DIMM with a core on every channel, of the same size; the channels as fast as they are"
    values: dict[str, float | str] = {
        "ndp.dimms": memory.channels * per_channel,
        "ndp.dimms_per_channel": per_channel,
        "memory.capacity_bytes": memory.capacity_bytes // ndp.dimms_per_channel * per_channel,
    }
    return _scaled("dimm-ndp", about, profile, values)


def _more_sockets(profile: Profile) -> Upgrade:
    cpu, memory = profile.cpu, profile.memory
    about = (
        "two sockets as one with twice the cores' peaks and memory channels, and the DIMMs with them; no NUMA"
    )
    values: dict[str, float | str] = {
        "cpu.cores": 2 * cpu.cores,
        "memory.channels": 2 * memory.channels,
        "memory.capacity_bytes": 2 * memory.capacity_bytes,
    }
    values |= {f"cpu.peak_tflops.{fmt}": 2 * peak for fmt, peak in cpu.peak_tflops.items()}
    if profile.ndp is not None:
        values["ndp.dimms"] = 2 * profile.ndp.dimms
    return _scaled("cpu-socket", about, profile, values, table="cpu")


def _scaled(
    name: str, about: str, profile: Profile, values: Mapping[str, float | str], table: str = ""
) -> Upgrade:
    """Other figures; measured tables of a domain take half as long."""
    changes = {path: (_figure(profile, path), value) for path, value in values.items()}

    def change() -> Profile:
        raw = profile.with_values(values, f"trimoe plan: {about}").as_dict()
        for index, row in enumerate(raw.get("tables", [])):
            if row["domain"] == table:
                changes[f"tables[{index}].ns"] = ("measured", "half")
                source = f"assumption: trimoe plan: half of {row['source']}"
                raw["tables"][index] = {**row, "ns": [ns / 2 for ns in row["ns"]], "source": source}
        return parse_profile({**raw, "name": _name(profile, name)}, _name(profile, name))

    return _upgrade(name, about, changes, change)


def _added(name: str, about: str, profile: Profile, sections: Mapping[str, Any]) -> Upgrade:
    """Sections that the machine lacks."""
    reason, found, changes = f"trimoe plan: {about}", dict[str, Any](), dict[str, tuple[Any, Any]]()
    for section, figures in sections.items():
        found[section] = {}
        for leaf, node in figures.items():
            found[section][leaf] = _assumed(node, reason)
            for path, value in _values(f"{section}.{leaf}", node):
                changes[path] = (None, value)

    def change() -> Profile:
        raw = {**profile.as_dict(), **found, "name": _name(profile, name)}
        return parse_profile(raw, _name(profile, name))

    return _upgrade(name, about, changes, change)


def _upgrade(
    name: str, about: str, changes: Mapping[str, tuple[Any, Any]], change: Callable[[], Profile]
) -> Upgrade:
    try:
        profile = change()
    except InputError as error:
        return Upgrade(name, about, changes, None, str(error))
    return Upgrade(name, about, changes, profile)


def _name(profile: Profile, upgrade: str) -> str:
    return f"{profile.name} + {upgrade}"


def _figure(profile: Profile, path: str) -> Any:
    node: Any = profile.raw
    for part in path.split("."):
        node = node[part]
    return node["value"]


def _assumed(node: Any, reason: str) -> Any:
    """A figure, or figures by number format, with another source."""
    if not isinstance(node, dict):
        return node  # a part's name
    if "value" in node:
        return {"value": node["value"], "assumption": reason}
    return {key: _assumed(one, reason) for key, one in node.items()}


def _values(path: str, node: Any) -> list[tuple[str, Any]]:
    if not isinstance(node, dict):
        return [(path, node)]
    if "value" in node:
        return [(path, node["value"])]
    return [pair for key, one in node.items() for pair in _values(f"{path}.{key}", one)]
