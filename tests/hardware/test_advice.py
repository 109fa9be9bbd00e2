"""Hints appear where they apply, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trimoe.hardware.advice import advise
from trimoe.hardware.cpu import CpuFeatures, Isa, explain
from trimoe.hardware.gpu import GpuState
from trimoe.hardware.load import Load
from trimoe.hardware.machine import Machine, Memory, detect_machine
from trimoe.hardware.numa import NumaNode
from trimoe.hardware.roofline import Roofline

from .fake_cpu import FakeCpu


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Eight cores on one node with nothing to complain about."""
    return replace(
        detect_machine(tmp_path),
        n_logical_cpus=8,
        n_physical_cores=8,
        n_usable_threads=8,
        memory=Memory(1 << 36, 1 << 35, None),
        transparent_huge_pages="madvise",
    )


def hints(
    machine: Machine,
    fake: FakeCpu | None = None,
    forced: str | None = None,
    threads: int = 8,
    emulation_wanted: bool = False,
    load: Load | None = None,
    roofline: Roofline | None = None,
) -> str:
    fake = fake or FakeCpu(missing=("amx_tile",))
    table = tuple(Isa(**{**row, "weights": tuple(row["weights"])}) for row in fake.kernel_table())
    sets = explain(CpuFeatures(**fake.features()), table)
    found = advise(
        machine,
        sets,
        table,
        forced_isa=forced,
        torch_threads=threads,
        emulation_wanted=emulation_wanted,
        load=load,
        roofline=roofline,
    )
    return "\n".join(found)


def test_what_disturbed_the_measurement_comes_first(machine: Machine) -> None:
    quiet, busy = Load(0.3, 0, 0.0), Load(5.1, 3, 41.0)
    steady = Roofline("avx2", 8, 1, (10.0,), {})
    torn = replace(steady, unrest_pct=62.0)
    assert hints(machine, load=quiet, roofline=steady) == hints(machine, load=busy) == ""
    told = hints(machine, load=busy, roofline=torn).splitlines()
    assert told[0].startswith("measured on a busy machine (3 other tasks running, load average 5.1")
    assert "a median lies 62 % below the best sample" in told[1] and len(told) == 2


def test_a_good_machine_gets_no_hint(machine: Machine) -> None:
    assert hints(machine) == ""


def test_a_forced_slower_entry_is_said(machine: Machine) -> None:
    fake = FakeCpu(missing=("amx_tile",), lacks={"amx": "CPUID lacks amx_tile"}, chosen="avx2")
    assert "unset it, and trimoe uses avx512," in hints(machine, fake, forced="avx2")
    assert "TRIMOE_CPU_ISA" not in hints(machine, forced="amx")


def test_emulated_amx_is_said(machine: Machine) -> None:
    assert "AMX is emulated, for tests only" in hints(machine, emulation_wanted=True)
    lacking = FakeCpu(lacks={"amx": "the trap is not loaded"}, missing=("amx_tile",), chosen="avx512")
    assert "no effect here: the trap is not loaded" in hints(machine, lacking, emulation_wanted=True)
    assert "mulated" not in hints(machine, lacking)


def test_a_machine_with_reference_loops_only_is_said(machine: Machine) -> None:
    fake = FakeCpu(
        arch="aarch64", os={}, lacks=dict.fromkeys(("avx512", "avx512_bf16", "avx2"), "x"), chosen="ref"
    )
    assert "reference loops" in hints(machine, fake)


def test_an_instruction_set_that_the_os_hides_is_said(machine: Machine) -> None:
    states = {"avx": True, "avx512": False, "amx": True}
    fake = FakeCpu(os=states, lacks={"avx512": "OS", "avx512_bf16": "OS"}, chosen="avx2")
    assert "AVX-512 BF16, AVX-512, AVX-512 VNNI: in the CPU, but hidden by the OS" in hints(machine, fake)


def test_fewer_or_more_threads_than_cores_are_said(machine: Machine) -> None:
    assert "set OMP_NUM_THREADS=8" in hints(machine, threads=1)
    assert "wait for each other" in hints(machine, threads=16)
    assert "one core only" in hints(replace(machine, n_usable_threads=1), threads=1)
    assert "limits this process to 1.5 of 8 cores" in hints(replace(machine, cpu_quota_cores=1.5))


def test_what_slows_or_limits_memory_is_said(machine: Machine) -> None:
    assert "transparent huge pages are off" in hints(replace(machine, transparent_huge_pages="never"))
    assert "limits memory to 2.0 GB" in hints(replace(machine, memory=Memory(2 * 10**9, 10**9, 2 * 10**9)))
    nodes = (NumaNode(0, (0,), 1, 1), NumaNode(1, (1,), 1, 1))
    assert "numactl --interleave=all" in hints(replace(machine, numa_nodes=nodes))


def test_a_gpu_without_a_driver_is_said(machine: Machine) -> None:
    assert "no driver serves it" in hints(replace(machine, gpu=GpuState((), None, 1)))
    assert "GPU" not in hints(replace(machine, gpu=GpuState(("H100",), "1", 1)))
