"""`trimoe doctor` on this machine and on pretended ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from support.amx import needs_avx512, run
from trimoe.cli.main import main
from trimoe.hardware import cpu
from trimoe.hardware.load import Load
from trimoe.hardware.roofline import Roofline

DOCTOR = [sys.executable, "-m", "trimoe.cli.main", "doctor"]


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["doctor", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    found = json.loads(doctor(capsys, "--json", *options))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_people_see_every_part_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    shown = doctor(capsys, "--threads", "1")
    for part in (
        "CPU ",
        "cores",
        "memory",
        "NUMA",
        "huge pages",
        "GPU",
        "cache",
        "torch",
        "Kernel table",
        "hint: ",
    ):
        assert part in shown, part
    assert shown.count("<- chosen") == 1
    assert "GB/s, median of" in shown
    assert "GFLOP/s" in shown


@pytest.mark.slow
def test_programs_see_the_chosen_entry_and_the_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "--threads", "1")
    (chosen,) = [row for row in found["kernel_table"] if row["chosen"]]
    assert chosen["isa"] == found["selected_isa"] == cpu.selected_isa()
    assert found["machine"]["memory"]["available_bytes"] > 0
    assert found["roofline"]["threads"] == 1
    assert found["roofline"]["bandwidth_gbps"] > 0
    assert set(found["roofline"]["gflops"]) == set(chosen["weights"])
    assert found["torch"]["version"]
    assert {"names", "driver", "n_pci_devices"} <= set(found["machine"]["gpu"])
    assert sum(one["used"] for one in found["instruction_sets"]) == 1


def test_a_busy_machine_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torn = Roofline("avx2", 1, 1 << 20, (0.4, 0.4, 9.0), {}, rounds=4, unrest_pct=96.0)
    monkeypatch.setattr("trimoe.cli.doctor.measure_roofline", lambda **_: torn)
    monkeypatch.setattr("trimoe.cli.doctor.read_load", lambda: Load(3.5, 3, 60.0))
    shown = doctor(capsys)
    assert "3 other tasks running" in shown and "the best of 4 rounds" in shown
    assert "hint: measured on a busy machine (3 other tasks running, load average 3.5" in shown
    assert "hint: the samples disagree" in shown and "nothing to improve" not in shown
    found = as_json(capsys)
    assert found["busy"] is True and found["load"] == {"average": 3.5, "others": 3, "pressure_pct": 60.0}
    assert (found["roofline"]["rounds"], found["roofline"]["unrest_pct"]) == (4, 96.0)


def test_nothing_is_measured_where_nothing_is_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise AssertionError("measured all the same")

    monkeypatch.setattr("trimoe.cli.doctor.measure_roofline", fail)
    assert as_json(capsys, "--no-measure")["roofline"] is None
    assert "Measured" not in doctor(capsys, "--no-measure")


def test_nothing_to_improve_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimoe.cli.doctor.advise", lambda *_, **__: [])
    assert doctor(capsys, "--no-measure").endswith("hint: nothing to improve was found\n")


def test_a_bad_thread_count_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--threads", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trimoe: error: expected ") and "--threads" in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("isa", ["ref", "mmx"])
def test_the_override_is_honoured_or_refused(isa: str) -> None:
    environment = os.environ | {"TRIMOE_CPU_ISA": isa}
    command = [*DOCTOR, "--json", "--no-measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if isa == "ref":
        assert done.returncode == 0
        assert json.loads(done.stdout)["selected_isa"] == "ref"
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("trimoe: error: expected TRIMOE_CPU_ISA")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@needs_avx512
def test_emulated_amx_is_said_loudly_and_not_measured() -> None:
    emulated = {"TRIMOE_CPU_ISA": "amx", "TRIMOE_AMX_EMULATED": "1"}
    shown = run(DOCTOR, changes=emulated)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("AMX IS EMULATED in this process")
    assert "Measured" not in shown.stdout
    found = json.loads(run([*DOCTOR, "--json"], changes=emulated).stdout)
    assert (found["amx_emulated"], found["roofline"], found["selected_isa"]) == (True, None, "amx")
    (verdict,) = [one for one in found["instruction_sets"] if one["name"] == "AMX-BF16"]
    assert (verdict["used"], verdict["permitted"]) == (True, False)
    plain = run([*DOCTOR, "--json", "--no-measure"], trap=None)
    assert json.loads(plain.stdout)["amx_emulated"] is False


@pytest.mark.slow
def test_ctrl_c_ends_a_measurement() -> None:
    code = """
import sys
from trimoe.cli import doctor, main
measure = doctor.measure_roofline
def long(**options):
    print("measuring", flush=True)
    return measure(**options | {"repeats": 40, "seconds": 0.2})
doctor.measure_roofline = long
sys.exit(main.main(["doctor", "--threads", "1"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "trimoe: interrupted\n"
    assert shown == ""
