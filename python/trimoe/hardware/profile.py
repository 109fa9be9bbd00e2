"""What a machine can do, as data: the figures that costs are worked out from, each with its source.

A profile is a JSON file (`profiles/`, or one that `trimoe calibrate` wrote). GB/s and TFLOP/s count 1e9 and
1e12; a multiply-add counts as two operations.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimoe.errors import InputError, nearest
from trimoe.hardware.folders import cache_folder
from trimoe.hardware.machine import detect_machine
from trimoe.hardware.profile_reader import SectionReader, read_json
from trimoe.own_files import check_own

__all__ = [
    "CALIBRATED",
    "CpuProfile",
    "ExpertTable",
    "GpuProfile",
    "HostMemoryProfile",
    "NdpProfile",
    "PcieProfile",
    "Profile",
    "is_calibrated",
    "load_profile",
    "profile_names",
]

CALIBRATED = "this-machine"  # what `trimoe calibrate` writes by default
_FOLDER = Path(__file__).with_name("profiles")
_NDP_OF = "h100-8470-ndp16"  # whose DIMMs are like those that `trimoe.ndp.Fleet` emulates by default


@dataclass(frozen=True)
class GpuProfile:
    """A GPU. Compute of T tokens takes flops(T + half_tokens) / (peak * max_efficiency).

    peak_tflops: dense, by number format. max_efficiency: of the peak, of an expert with very many tokens;
    half_tokens: of one expert, where half of that is reached.
    """

    name: str
    peak_tflops: Mapping[str, float]
    max_efficiency: float
    half_tokens: float
    memory_bytes: int
    memory_gbps: float


@dataclass(frozen=True)
class PcieProfile:
    """The way to the GPU and back; setup_ns: what a copy of nothing takes."""

    h2d_gbps: float
    d2h_gbps: float
    setup_ns: float


@dataclass(frozen=True)
class CpuProfile:
    """All cores that compute experts; efficiency as for `GpuProfile`."""

    name: str
    cores: int
    peak_tflops: Mapping[str, float]
    max_efficiency: float
    half_tokens: float


@dataclass(frozen=True)
class HostMemoryProfile:
    """Host memory; channel_gbps is the peak of one channel, efficiency what of it a stream gets."""

    channels: int
    channel_gbps: float
    efficiency: float
    capacity_bytes: int

    @property
    def stream_gbps(self) -> float:
        """What one channel streams at."""
        return self.channel_gbps * self.efficiency


@dataclass(frozen=True)
class NdpProfile:
    """DIMMs with near-data processing, which are the host memory; arguments of `trimoe.ndp.expert_time`.

    dimms_per_channel: DIMM d is on channel d // dimms_per_channel. speed_grade: of the emulator; sharing: how
    the host and the core share a rank.
    """

    dimms: int
    dimms_per_channel: int
    speed_grade: str
    ranks: int
    tflops: float
    buffer_kib: int
    link_gbps: float
    sharing: str


@dataclass(frozen=True)
class ExpertTable:
    """Measured nanoseconds of one expert over its tokens, everything included; ns never falls.

    domain: "cpu" or "gpu"; weights: the packed format.
    """

    domain: str
    weights: str
    hidden: int
    inter: int
    tokens: tuple[int, ...]
    ns: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Profile:
    """A machine. Parts that it lacks are None; `sources` has the source of every figure by its path.

    A source that begins with "assumption: " is one; `assumptions` lists them.
    """

    name: str
    about: str
    cpu: CpuProfile
    memory: HostMemoryProfile
    gpu: GpuProfile | None
    pcie: PcieProfile | None
    ndp: NdpProfile | None
    tables: tuple[ExpertTable, ...]
    sources: Mapping[str, str] = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def n_dimms(self) -> int:
        """Places where a localized expert can lie: DIMMs, or channels where the DIMMs are plain."""
        return self.ndp.dimms if self.ndp else self.memory.channels

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Paths of the figures that nobody published or measured."""
        return tuple(path for path, source in self.sources.items() if source.startswith("assumption: "))

    def as_dict(self) -> dict[str, Any]:
        """The JSON of the file, sources included."""
        return copy.deepcopy(dict(self.raw))

    def with_values(self, values: Mapping[str, float | str], reason: str) -> Profile:
        """This machine with other figures, for sweeps: {"ndp.tflops": 0.25, "gpu.peak_tflops.bf16": 800}.

        Raises:
            InputError: there is no such figure, or it is out of range.
        """
        raw = self.as_dict()
        for path, value in values.items():
            *parents, leaf = path.split(".")
            node: Any = raw
            for name in parents:
                node = node.get(name) if isinstance(node, dict) else None
            if not isinstance(node, dict) or path not in self.sources:
                raise InputError(
                    expected=f"a figure of profile {self.name}", got=path, hint=nearest(path, self.sources)
                )
            node[leaf] = {"value": value, "assumption": reason}
        return parse_profile(raw, f"profile {self.name}")

    def with_dimms(self, dimms: int) -> Profile:
        """This machine with a core in so many emulated DIMMs, which are all of its memory, and no GPU.

        0: with neither. InputError for DIMMs that its channels cannot have equally many of.
        """
        name = f"{self.name}, no GPU" + (f", {dimms} emulated DIMM-NDPs" if dimms else "")
        raw = {key: one for key, one in self.as_dict().items() if key not in ("gpu", "pcie", "ndp")}
        raw["name"] = name
        if dimms:
            channels = self.memory.channels
            values: dict[str, Any] = {"dimms": dimms, "dimms_per_channel": max(1, dimms // channels)}
            ndp = {leaf: node["value"] for leaf, node in load_profile(_NDP_OF).raw["ndp"].items()} | values
            raw["ndp"] = {leaf: {"value": value, "assumption": "emulated"} for leaf, value in ndp.items()}
        return parse_profile(raw, f"profile {name}")


def profile_names() -> tuple[str, ...]:
    """The profiles that trimoe ships."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def is_calibrated() -> bool:
    """Whether `load_profile(CALIBRATED)` finds a file."""
    return _calibrated_path().is_file()


def _calibrated_path() -> Path:
    return cache_folder() / f"{CALIBRATED}.json"


def load_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, `this-machine` after `trimoe calibrate`, or a JSON file by its path.

    Raises:
        InputError: there is no such profile, or a figure in it is missing, without a source, or absurd.
    """
    text = str(name_or_path)
    if text in profile_names():
        path = _FOLDER / f"{text}.json"
        raw = read_json(path)
    elif text == CALIBRATED:
        path = _calibrated_path()
        if not path.is_file():
            raise InputError(
                expected="a calibrated machine", got=f"no {path}", hint="`trimoe calibrate` (a minute)"
            )
        raw = read_json(path, check_own)
        _check_same_cpu(raw, path)
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                expected=f"a profile out of {', '.join(profile_names())}, {CALIBRATED}, or a JSON file",
                got=text,
                hint=nearest(text, (*profile_names(), CALIBRATED)),
            )
        raw = read_json(path)
    return parse_profile(raw, f"profile {path.name}")


def parse_profile(raw: Mapping[str, Any], origin: str) -> Profile:
    """The profile that a JSON object describes; `origin` names it in errors.

    Raises:
        InputError: as for `load_profile`.
    """
    top = SectionReader(dict(raw), origin)
    profile = Profile(
        name=top.text("name"),
        about=top.text("about"),
        cpu=top.required("cpu", CpuProfile),
        memory=top.required("memory", HostMemoryProfile),
        gpu=top.section("gpu", GpuProfile),
        pcie=top.section("pcie", PcieProfile),
        ndp=top.section("ndp", NdpProfile),
        tables=tuple(ExpertTable(**row) for row in top.tables("tables")),
        sources=top.sources,
        raw=json.loads(json.dumps(raw)),
    )
    top.finish(also={"fingerprint", "validation"})
    _check_whole(profile, origin)
    return profile


def _check_same_cpu(raw: Mapping[str, Any], path: Path) -> None:
    """A cache folder may be shared by machines, or a disk moved to another one."""
    fingerprint, here = raw.get("fingerprint"), detect_machine().cpu_brand
    there = fingerprint.get("cpu_brand") if isinstance(fingerprint, dict) else None
    if there != here:
        raise InputError(
            expected=f"a calibration of this machine ({here})",
            got=f"one of {there} in {path}",
            hint="`trimoe calibrate`, or the file's path to use it nevertheless",
        )


def _check_whole(profile: Profile, origin: str) -> None:
    """What one figure alone cannot show."""
    if (profile.gpu is None) != (profile.pcie is None):
        raise InputError(expected=f"{origin}: gpu and pcie together", got="only one", hint="both, or neither")
    ndp = profile.ndp
    if ndp and ndp.dimms != profile.memory.channels * ndp.dimms_per_channel:
        raise InputError(
            expected=f"{origin}: ndp.dimms = memory.channels * ndp.dimms_per_channel",
            got=f"{ndp.dimms} DIMMs, {profile.memory.channels} channels of {ndp.dimms_per_channel}",
            hint=f"{profile.memory.channels * ndp.dimms_per_channel} DIMMs",
        )
