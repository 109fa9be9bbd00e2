"""A profile is read whole, or one line says which figure is missing, without a source or absurd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile, parse_profile


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        *parents, leaf = path.split(".")
        for name in parents:
            raw = raw[name]
        raw[leaf] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        *parents, leaf = path.split(".")
        for name in parents:
            raw = raw[name]
        del raw[leaf]

    return change


TABLE = {
    **{"domain": "cpu", "weights": "bf16", "hidden": 8, "inter": 8, "source": "a test"},
    **{"tokens": [1, 2], "ns": [5.0, 6.0]},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("name"), "a text for name; got nothing"),
        (drop("cpu"), "a section cpu; got nothing"),
        (put("memory", []), r"an object for memory; got \[\]"),
        (drop("gpu.memory_gbps"), r"gpu\.memory_gbps as"),
        (put("gpu.memory_gbps", 2000), r"gpu\.memory_gbps as .*got 2000"),
        (
            put("gpu.memory_gbps", {"value": 2000}),
            r"a source or an assumption for gpu\.memory_gbps; got none",
        ),
        (put("gpu.memory_gbps.source", " "), r"a source or an assumption .* got none"),
        (put("gpu.memory_gbps.assumption", "so"), "got source and assumption"),
        (put("gpu.memory_gbps.value", -3), r"gpu\.memory_gbps; got -3"),
        (put("gpu.memory_gbps.value", 1e9), r"from 1 to 100,000 for gpu\.memory_gbps; got 1000000000\.0"),
        (put("gpu.memory_gbps.value", float("nan")), "got nan"),
        (put("gpu.memory_gbps.value", float("inf")), "got inf"),
        (put("gpu.memory_gbps.value", True), "got True"),
        (put("gpu.memory_gbps.value", "2000"), "got 2000"),
        (put("gpu.memory_gbps.unit", "GB/s"), "got unit"),
        (put("gpu.max_efficiency.value", 1.2), r"gpu\.max_efficiency; got 1\.2"),
        (put("gpu.colour", {"value": 1, "source": "s"}), "got colour"),
        (put("gpu.peak_tflops", {}), "at least one number format"),
        (put("gpu.peak_tflops.fp99", {"value": 1, "source": "s"}), "got fp99"),
        (put("gpu.name", 4), r"a text for gpu\.name; got 4"),
        (put("cpu.cores.value", 1.5), r"a whole number .* cpu\.cores; got 1\.5"),
        (put("ndp.sharing.value", "never"), "exclusive or concurrent; got never"),
        (put("ndp.dimms.value", 12), r"got 12 DIMMs, 8 channels of 2"),
        (put("turbo", 1), "got turbo"),
        (drop("pcie"), "gpu and pcie together"),
        (put("tables", {}), "a list for tables"),
        (put("tables", [{**TABLE, "ns": [6.0, 5.0]}]), r"tables\[0\]\.ns that never fall"),
        (put("tables", [{**TABLE, "tokens": [2, 2]}]), r"rising tokens"),
        (put("tables", [{**TABLE, "ns": [5.0]}]), r"one ns for each; got 2 and 1"),
        (put("tables", [{**TABLE, "ns": [5.0, "x"]}]), r"tables\[0\]\.ns; got x"),
        (put("tables", [{**TABLE, "source": ""}]), r"a source for tables\[0\]"),
        (put("tables", [{**TABLE, "weights": "int3"}]), "got int3"),
        (put("tables", [{**TABLE, "hidden": 0}]), r"tables\[0\]\.hidden; got 0"),
    ],
)
def test_each_bad_profile_is_one_line(change: Callable[[dict[str, Any]], None], message: str) -> None:
    raw = load_profile("h100-8470-ndp16").as_dict()
    change(raw)
    with pytest.raises(InputError, match=message) as error:
        parse_profile(raw, "profile bad.json")
    assert "\n" not in str(error.value) and "profile bad.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '"text"'])
def test_a_file_that_is_no_object(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"a JSON object in .*bad\.json"):
        load_profile(file)
