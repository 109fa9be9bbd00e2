"""What the user could change to go faster: one sentence each, only where it applies."""

from __future__ import annotations

from collections.abc import Sequence

from trimoe.hardware.cpu import InstructionSet, Isa
from trimoe.hardware.load import Load
from trimoe.hardware.machine import Machine
from trimoe.hardware.roofline import Roofline
from trimoe.human import human_bytes, human_number

__all__ = ["advise"]


def advise(
    machine: Machine,
    sets: Sequence[InstructionSet],
    table: Sequence[Isa],
    *,
    forced_isa: str | None,
    torch_threads: int,
    emulation_wanted: bool = False,
    load: Load | None = None,
    roofline: Roofline | None = None,
) -> list[str]:
    """Hints for this machine, most valuable first; empty when there is nothing to improve.

    Args:
        machine: the facts.
        sets: verdicts from `hardware.cpu.explain`.
        table: the kernel table.
        forced_isa: value of `TRIMOE_CPU_ISA`, if set.
        torch_threads: threads that torch's pool starts with.
        emulation_wanted: whether `TRIMOE_AMX_EMULATED` is set.
        load: what else ran just before the measurement.
        roofline: what was measured; None where nothing was.
    """
    return [
        *(_measurement_hints(machine, load, roofline) if roofline else []),
        *(_emulation_hints(table) if emulation_wanted else []),
        *_isa_hints(sets, table, forced_isa),
        *_thread_hints(machine, torch_threads),
        *_memory_hints(machine),
        *_gpu_hints(machine),
    ]


def _measurement_hints(machine: Machine, load: Load | None, roofline: Roofline) -> list[str]:
    hints = []
    if load is not None and load.is_busy(machine.n_usable_threads):
        hints.append(
            f"measured on a busy machine ({load.in_words()}): the figures above are too low, "
            "measure again when it is idle"
        )
    if not roofline.is_steady:
        hints.append(
            f"the samples disagree, a median lies {roofline.unrest_pct:.0f} % below the best sample: "
            "something else used the machine, or its clock changed; measure again when it is idle"
        )
    return hints


def _emulation_hints(table: Sequence[Isa]) -> list[str]:
    amx = next((entry for entry in table if entry.isa == "amx"), None)
    if amx is None or not amx.supported:
        return [f"TRIMOE_AMX_EMULATED has no effect here: {amx.reason if amx else 'no AMX in this build'}"]
    return ["AMX is emulated, for tests only: unset TRIMOE_AMX_EMULATED and LD_PRELOAD for real work"]


def _isa_hints(sets: Sequence[InstructionSet], table: Sequence[Isa], forced_isa: str | None) -> list[str]:
    hints = []
    best = next((entry for entry in table if entry.supported), None)
    chosen = next((entry for entry in table if entry.chosen), None)
    if forced_isa and best and chosen and chosen.isa != best.isa:
        hints.append(
            f"TRIMOE_CPU_ISA={forced_isa} is set: unset it, and trimoe uses {best.isa}, which is faster"
        )
    elif chosen and chosen.isa == "ref":
        hints.append("only the plain reference loops run here: expect correct results, but no speed")
    hidden = ", ".join(one.name for one in sets if one.in_cpu and one.in_os is False)
    if hidden:
        hints.append(
            f"{hidden}: in the CPU, but hidden by the OS: look at kernel options or the VM's CPU type"
        )
    return hints


def _thread_hints(machine: Machine, torch_threads: int) -> list[str]:
    hints = []
    if machine.cpu_quota_cores is not None and machine.cpu_quota_cores < machine.n_physical_cores:
        hints.append(
            f"a cgroup limits this process to {human_number(machine.cpu_quota_cores)} "
            f"of {machine.n_physical_cores} cores"
        )
    if torch_threads < machine.n_usable_threads:
        hints.append(
            f"torch starts with {torch_threads} of {machine.n_usable_threads} usable cores: "
            f"set OMP_NUM_THREADS={machine.n_usable_threads}"
        )
    elif torch_threads > machine.n_usable_threads:
        hints.append(
            f"torch starts with {torch_threads} threads on {machine.n_usable_threads} usable cores: "
            f"set OMP_NUM_THREADS={machine.n_usable_threads}, or threads wait for each other"
        )
    elif machine.n_usable_threads == 1:
        hints.append("one core only: one thread seldom saturates memory, so expect low bandwidth")
    return hints


def _memory_hints(machine: Machine) -> list[str]:
    hints = []
    if machine.transparent_huge_pages == "never":
        hints.append(
            "transparent huge pages are off: "
            "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled` saves TLB misses"
        )
    if machine.memory.cgroup_limit_bytes is not None:
        hints.append(f"a cgroup limits memory to {human_bytes(machine.memory.cgroup_limit_bytes)}")
    if len(machine.numa_nodes) > 1:
        hints.append(
            f"{len(machine.numa_nodes)} NUMA nodes: trimoe keeps one copy of the weights; "
            "`numactl --interleave=all` spreads it over all memory channels"
        )
    return hints


def _gpu_hints(machine: Machine) -> list[str]:
    if machine.gpu.n_pci_devices and not machine.gpu.present:
        return [
            "an NVIDIA GPU is on the PCI bus, but no driver serves it: install the driver, or pass it through"
        ]
    return []
