"""The CPU domain's kernel table, and why each instruction set is used or not.

The facts come from the native module `trimoe._cpu`, which probes CPUID, XCR0 and the AMX permission at run
time; nothing about the machine that built the package counts.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from trimoe.errors import FailureError

__all__ = [
    "CpuFeatures",
    "InstructionSet",
    "Isa",
    "explain",
    "features",
    "kernel_table",
    "native",
    "selected_isa",
]


@dataclass(frozen=True)
class Isa:
    """One entry of the kernel table: the weight formats it has kernels for, and "used" or what it lacks."""

    isa: str
    weights: tuple[str, ...]
    supported: bool
    reason: str
    chosen: bool


@dataclass(frozen=True)
class CpuFeatures:
    """What CPUID reports, what the OS enables (XCR0), and whether this process may use AMX tiles."""

    arch: str
    vendor: str
    brand: str
    xcr0: int | None
    cpuid: dict[str, bool]
    os: dict[str, bool]
    amx_permission: bool


@dataclass(frozen=True)
class InstructionSet:
    """The verdict on one instruction set; None = the question does not arise for it.

    `in_cpu`: CPUID has every flag it needs. `in_os`: the OS saves its registers. `permitted`: to us.
    """

    name: str
    in_cpu: bool
    in_os: bool | None
    permitted: bool | None
    kernels: bool
    used: bool
    why: str

    @property
    def usable(self) -> bool:
        """Code using it would run here, whether or not trimoe has such code."""
        return self.in_cpu and self.in_os is not False and self.permitted is not False


@dataclass(frozen=True)
class _Needs:
    """What an x86 instruction set asks for; `key` would be the name of its kernel table entry."""

    key: str
    name: str
    cpuid: tuple[str, ...]
    os: str
    permission: bool = False


_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
_X86_SETS = (
    _Needs("amx", "AMX-BF16", ("amx_tile", "amx_bf16"), "amx", permission=True),
    _Needs("amx_int8", "AMX-INT8", ("amx_tile", "amx_int8"), "amx", permission=True),
    _Needs("avx512_bf16", "AVX-512 BF16", (*_AVX512, "avx512_bf16"), "avx512"),
    _Needs("avx512", "AVX-512", _AVX512, "avx512"),
    _Needs("avx512_vnni", "AVX-512 VNNI", (*_AVX512, "avx512_vnni"), "avx512"),
    _Needs("avx_vnni", "AVX-VNNI", ("avx2", "avx_vnni"), "avx"),
    _Needs("avx2", "AVX2", ("avx2", "fma"), "avx"),
)


def native() -> Any:
    """The compiled module `trimoe._cpu`.

    Raises:
        FailureError: it is not there or does not load (not built, or built for another Python).
    """
    try:
        return importlib.import_module("trimoe._cpu")
    except ImportError as error:
        raise FailureError(
            expected="the compiled module trimoe._cpu",
            got=str(error),
            hint="`pip install .` with this Python",
        ) from error


def features() -> CpuFeatures:
    """Probe the CPU that this runs on."""
    return CpuFeatures(**native().features())


def kernel_table() -> tuple[Isa, ...]:
    """All entries in order of preference; exactly one is chosen.

    Raises:
        InputError: `TRIMOE_CPU_ISA` names an entry that is unknown or cannot run here.
    """
    selected_isa()
    return tuple(Isa(**{**row, "weights": tuple(row["weights"])}) for row in native().kernel_table())


def selected_isa() -> str:
    """Name of the entry that computes, `TRIMOE_CPU_ISA` honoured.

    Raises:
        InputError: `TRIMOE_CPU_ISA` names an entry that is unknown or cannot run here.
    """
    return str(native().selected_isa())


def explain(cpu: CpuFeatures, table: tuple[Isa, ...]) -> tuple[InstructionSet, ...]:
    """The verdict on each x86 instruction set that matters for experts, and on each other table entry."""
    entries = {entry.isa: entry for entry in table}
    sets = _X86_SETS if cpu.arch == "x86_64" else ()
    chosen = next((entry.isa for entry in table if entry.chosen), "none")
    verdicts = [_judge(needs, cpu, entries.pop(needs.key, None), chosen) for needs in sets]
    for entry in entries.values():
        why = "plain loops, the reference for all others" if entry.isa == "ref" else entry.reason
        why = f"used: {why}" if entry.chosen else f"not used: {why}"
        verdicts.append(InstructionSet(entry.isa, entry.supported, None, None, True, entry.chosen, why))
    return tuple(verdicts)


def _judge(needs: _Needs, cpu: CpuFeatures, entry: Isa | None, chosen: str) -> InstructionSet:
    missing = [flag for flag in needs.cpuid if not cpu.cpuid.get(flag, False)]
    in_os = cpu.os.get(needs.os, False)
    permitted = cpu.amx_permission if needs.permission else None
    if entry is not None and entry.chosen:
        why = "used"
    elif missing:
        why = f"not used: CPUID lacks {', '.join(missing)}"
    elif not in_os:
        why = f"not used: the CPU has it, but the OS does not enable its registers (XCR0 = {_hex(cpu.xcr0)})"
    elif permitted is False:
        why = "not used: the kernel refused this process the tile registers (arch_prctl ARCH_REQ_XCOMP_PERM)"
    elif entry is None:
        why = "not used: trimoe has no kernels for it yet"
    elif not entry.supported:
        why = f"not used: {entry.reason}"
    else:
        why = f"not used: it runs here, but {chosen} is preferred"
    return InstructionSet(
        name=needs.name,
        in_cpu=not missing,
        in_os=in_os,
        permitted=permitted,
        kernels=entry is not None,
        used=entry is not None and entry.chosen,
        why=why,
    )


def _hex(value: int | None) -> str:
    return "unreadable" if value is None else f"{value:#x}"
