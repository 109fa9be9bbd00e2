"""Matrix products by oneDNN, which no one here wrote, against those of "ref" and of the entry in use.

The package under test is the one that ships; a child process loads a twin of its core that has the entry.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from support.amx import BUILD, PACKAGE, ROOT, run
from support.cases import CASES, FORMATS, INTEGER
from support.onednn_results import EXTRA, TOLERANCE
from trimoe import _cpu
from trimoe.hardware.cpu import features

TWIN = BUILD / "onednn" / "libtrimoe_core.so"

pytestmark = pytest.mark.skipif(features().arch != "x86_64", reason="the wheels of oneDNN are for x86-64")

# What oneDNN may use: all that the processor has, and an old one, where all products are in fp32.
MAX_ISAS = ["DEFAULT", "AVX2"]


@pytest.fixture(scope="module", params=MAX_ISAS)
def results(request: pytest.FixtureRequest) -> dict[Any, Any]:
    assert TWIN.exists(), f"{TWIN} is not built: make test builds it, or set TRIMOE_BUILD_DIR"
    changes = {"ONEDNN_MAX_CPU_ISA": request.param, "PYTHONPATH": f"{PACKAGE.parent}:{ROOT / 'tests'}"}
    program = ROOT / "tests" / "support" / "onednn_results.py"
    done = run([sys.executable, program], trap=None, preload=[TWIN], changes=changes)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    head, *rows = map(json.loads, done.stdout.splitlines())
    return {"head": head, **{(row["case"], row["format"]): row for row in rows}}


@pytest.mark.slow
def test_the_twin_has_the_entry_and_does_not_choose_it(results: dict[Any, Any]) -> None:
    assert results["head"]["isas"][-2:] == ["onednn", "ref"]
    assert results["head"]["selected"] == _cpu.selected_isa()


def test_what_ships_has_no_such_entry() -> None:
    assert "onednn" not in [entry["isa"] for entry in _cpu.kernel_table()]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", [*CASES, *EXTRA], ids=lambda case: case.name)
def test_onednn_agrees(results: dict[Any, Any], case: Any, name: str) -> None:
    row = results[case.name, name]
    assert row["exact"] <= TOLERANCE[name]
    assert row["ref"] <= TOLERANCE[name]
    assert row["selected"] <= TOLERANCE[name]
    assert row["same_on_threads"]


@pytest.mark.slow
@pytest.mark.parametrize("name", INTEGER)
@pytest.mark.parametrize("case", [*CASES, *EXTRA], ids=lambda case: case.name)
def test_sums_of_codes_are_the_same_to_the_bit(results: dict[Any, Any], case: Any, name: str) -> None:
    """Both entries add up exactly and scale in the same order; sums in fp32 are exact below 2^24."""
    assert results[case.name, name]["same_as_ref"]
