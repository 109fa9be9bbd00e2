"""Why each instruction set is used or not, in words: on pretended CPUs and on this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimoe.errors import FailureError, InputError
from trimoe.hardware import cpu
from trimoe.hardware.cpu import CpuFeatures, InstructionSet, Isa, explain

from .fake_cpu import FakeCpu


def verdicts(fake: FakeCpu) -> dict[str, InstructionSet]:
    table = tuple(Isa(**{**row, "weights": tuple(row["weights"])}) for row in fake.kernel_table())
    return {one.name: one for one in explain(CpuFeatures(**fake.features()), table)}


def test_a_machine_with_everything_uses_the_preferred_entry() -> None:
    found = verdicts(FakeCpu())
    assert found["AMX-BF16"].used
    assert found["AMX-BF16"].why == "used"
    assert found["AVX2"].why == "not used: it runs here, but amx is preferred"
    assert found["AMX-INT8"].why == "not used: trimoe has no kernels for it yet"
    assert found["AMX-INT8"].usable
    assert not found["ref"].used
    assert [name for name, one in found.items() if one.used] == ["AMX-BF16"]


def test_flags_that_cpuid_lacks_are_named() -> None:
    fake = FakeCpu(
        missing=("avx512bw", "avx512_bf16"), lacks={"avx512": "x", "avx512_bf16": "x"}, chosen="avx2"
    )
    found = verdicts(fake)
    assert found["AVX-512"].why == "not used: CPUID lacks avx512bw"
    assert found["AVX-512 BF16"].why == "not used: CPUID lacks avx512bw, avx512_bf16"
    assert not found["AVX-512 BF16"].in_cpu
    assert not found["AVX-512 BF16"].usable
    assert found["AVX2"].used


def test_registers_that_the_os_hides_are_told_with_xcr0() -> None:
    states = {"avx": True, "avx512": False, "amx": False}
    found = verdicts(FakeCpu(os=states, lacks={"avx512": "OS", "avx512_bf16": "OS"}, chosen="avx2"))
    assert found["AVX-512"].in_cpu
    assert found["AVX-512"].in_os is False
    assert "XCR0 = 0x602e7" in found["AVX-512"].why
    assert not found["AMX-INT8"].usable


def test_tiles_that_the_kernel_refuses() -> None:
    found = verdicts(FakeCpu(amx_permission=False, lacks={"amx": "refused"}, chosen="avx512"))
    assert found["AMX-BF16"].permitted is False
    assert not found["AMX-BF16"].usable
    assert "ARCH_REQ_XCOMP_PERM" in found["AMX-BF16"].why
    assert found["AVX-512"].permitted is None


def test_an_entry_that_is_unsupported_for_a_reason_of_its_own_tells_it() -> None:
    found = verdicts(FakeCpu(lacks={"avx512": "compiler was too old"}, chosen="avx2"))
    assert found["AVX-512"].why == "not used: compiler was too old"


def test_other_architectures_tell_of_table_entries_only() -> None:
    lacks = dict.fromkeys(("amx", "avx512", "avx512_bf16", "avx2"), "not x86-64")
    found = verdicts(FakeCpu(arch="aarch64", os={}, amx_permission=False, lacks=lacks, chosen="ref"))
    assert set(found) == {"amx", "avx512", "avx512_bf16", "avx2", "ref"}
    assert found["ref"].used
    assert found["avx2"].why == "not used: not x86-64"


def test_a_bad_override_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "native", lambda: FakeCpu(chosen="mmx"))
    with pytest.raises(InputError) as caught:
        cpu.kernel_table()
    assert caught.value.exit_code == 2
    assert (caught.value.got, caught.value.hint) == ("mmx", "amx")


def test_a_missing_native_module_is_a_failure_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trimoe._cpu", None)
    with pytest.raises(FailureError, match=r"compiled module.*pip install"):
        cpu.native()


def test_this_machine_has_one_chosen_entry_that_it_supports() -> None:
    table = cpu.kernel_table()
    (chosen,) = [entry for entry in table if entry.chosen]
    assert chosen.supported
    assert chosen.isa == cpu.selected_isa()
    assert table[-1].isa == "ref"
    assert table[-1].supported
    assert sum(one.used for one in explain(cpu.features(), table)) == 1


def test_cpuid_agrees_with_the_kernel() -> None:
    listed = {
        flag.replace("_", "")
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("flags")
        for flag in line.split()
    }
    found = cpu.features()
    for flag, present in found.cpuid.items():
        assert present or flag.replace("_", "") not in listed, f"{flag} was overlooked"
        # A kernel that does not enable a register state strikes its flags from the list.
        if found.os["avx512"] and found.os["amx"]:
            assert present == (flag.replace("_", "") in listed)


def test_each_supported_entry_can_be_forced_and_an_unknown_one_cannot() -> None:
    code = "from trimoe.hardware.cpu import kernel_table; print([e.isa for e in kernel_table() if e.chosen])"
    for entry in (entry.isa for entry in cpu.kernel_table() if entry.supported):
        assert forced(entry, code).stdout == f"['{entry}']\n"
    refused = forced("mmx", code)
    assert refused.returncode == 1
    assert "InputError: expected TRIMOE_CPU_ISA out of " in refused.stderr
    assert "got mmx; try" in refused.stderr


def forced(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    """The choice is made once in a process, so each one needs its own."""
    environment = os.environ | {"TRIMOE_CPU_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
