"""`trimoe doctor`: what the machine has, what trimoe uses of it and why, how fast it is, what fits it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

import trimoe
from trimoe.cli.completion import models
from trimoe.cli.model_fit import ModelFit
from trimoe.cli.options import JsonOption, MeasureOption, ThreadsOption
from trimoe.cli.render import human_bytes, print_facts, print_json, print_line, print_table
from trimoe.hardware.advice import advise
from trimoe.hardware.cpu import CpuFeatures, InstructionSet, Isa, explain, features, kernel_table
from trimoe.hardware.folders import CacheFolder, cache_state
from trimoe.hardware.load import Load, read_load
from trimoe.hardware.machine import Machine, detect_machine
from trimoe.hardware.roofline import Roofline, measure_roofline
from trimoe.hardware.torch_state import TorchState, torch_state

__all__ = ["doctor"]

_ROUNDS = 4

_EMULATED = (
    "AMX IS EMULATED in this process (TRIMOE_AMX_EMULATED is set): each tile instruction costs microseconds. "
    "Results are exact, speeds mean nothing, and none is measured."
)


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model to check against this machine: one whose sizes trimoe knows, or a checkpoint folder.",
            show_default=False,
            autocompletion=models,
        ),
    ] = None,
    measure: MeasureOption = True,
    threads: ThreadsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what this machine has and what trimoe uses of it.

    Each instruction set is shown with the reason why it is used or not. With MODEL, also whether the model
    fits into memory, in which format, and what bounds its speed.

    \b
    Examples:
      trimoe doctor
      trimoe doctor qwen3-30b-a3b
      trimoe doctor /models/OLMoE-1B-7B
      trimoe doctor --no-measure --json
      TRIMOE_CPU_ISA=avx2 trimoe doctor
    """
    needs = None
    if model is not None:  # a bad name is told before anything is measured
        from trimoe.measure.fit import model_needs

        needs = model_needs(model)
    findings = _look(measure, threads)
    fits = None if needs is None else ModelFit.of(needs, findings.machine, findings.roofline)
    if json_output:
        print_json({**findings.as_dict(), "model": fits and fits.as_dict()})
        return
    if findings.amx_emulated:
        print_line(_EMULATED)
        print_line()
    _print_machine(findings)
    _print_sets(findings)
    if findings.roofline is not None:
        _print_roofline(findings.roofline)
    if fits is not None:
        print_line()
        fits.print()
    print_line()
    for hint in findings.hints or ["nothing to improve was found"]:
        print_line(f"hint: {hint}")


@dataclass(frozen=True)
class _Findings:
    machine: Machine
    cpu: CpuFeatures
    kernel_table: tuple[Isa, ...]
    instruction_sets: tuple[InstructionSet, ...]
    torch: TorchState
    cache: CacheFolder
    load: Load
    roofline: Roofline | None
    hints: list[str]
    amx_emulated: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "trimoe_version": trimoe.__version__,
            "python_version": platform.python_version(),
            "machine": asdict(self.machine),
            "cpu": asdict(self.cpu),
            "selected_isa": next(entry.isa for entry in self.kernel_table if entry.chosen),
            "kernel_table": [asdict(entry) for entry in self.kernel_table],
            "instruction_sets": [asdict(one) for one in self.instruction_sets],
            "load": asdict(self.load),
            "busy": self.load.is_busy(self.machine.n_usable_threads),
            "roofline": None if self.roofline is None else self.roofline.as_dict(),
            "amx_emulated": self.amx_emulated,
            "torch": asdict(self.torch),
            "cache": asdict(self.cache),
            "hints": self.hints,
        }


def _look(measure: bool, threads: int | None) -> _Findings:
    cpu, table, machine, torch = features(), kernel_table(), detect_machine(), torch_state()
    sets = explain(cpu, table)
    emulation_wanted = os.environ.get("TRIMOE_AMX_EMULATED", "") not in ("", "0")
    emulated = emulation_wanted and any(entry.isa == "amx" and entry.supported for entry in table)
    load = read_load()
    measured = (
        measure_roofline(threads=threads, repeats=3, rounds=_ROUNDS) if measure and not emulated else None
    )
    return _Findings(
        machine=machine,
        cpu=cpu,
        kernel_table=table,
        instruction_sets=sets,
        torch=torch,
        cache=cache_state(),
        load=load,
        roofline=measured,
        hints=advise(
            machine,
            sets,
            table,
            forced_isa=os.environ.get("TRIMOE_CPU_ISA"),
            torch_threads=torch.threads,
            emulation_wanted=emulation_wanted,
            load=load,
            roofline=measured,
        ),
        amx_emulated=emulated,
    )


def _print_machine(findings: _Findings) -> None:
    machine, torch, cache = findings.machine, findings.torch, findings.cache
    memory = machine.memory
    limit = "" if memory.cgroup_limit_bytes is None else " (cgroup limit)"
    nodes = [
        f"node {one.node}: {len(one.cpus)} CPUs, {human_bytes(one.memory_total_bytes)}"
        for one in machine.numa_nodes
    ]
    facts = {
        "trimoe": f"{trimoe.__version__}, Python {platform.python_version()}",
        "torch": torch.in_words(),
        "CPU": f"{machine.cpu_brand} ({machine.arch})",
        "cores": f"{machine.n_physical_cores} physical, {machine.n_logical_cpus} logical, "
        f"{machine.n_usable_threads} usable here",
        "memory": f"{human_bytes(memory.available_bytes)} free of {human_bytes(memory.total_bytes)}{limit}",
        "NUMA": "; ".join(nodes) or "the kernel tells nothing: taken as one node",
        "huge pages": f"transparent: {machine.transparent_huge_pages}",
        "GPU": machine.gpu.in_words(),
        "load": findings.load.in_words(),
        "cache": f"{cache.path} ({_cache_words(cache)})",
    }
    print_facts("Machine", facts)


def _cache_words(cache: CacheFolder) -> str:
    held = f"holds {human_bytes(cache.used_bytes)}" if cache.exists else "not created yet"
    free = "" if cache.disk_free_bytes is None else f", {human_bytes(cache.disk_free_bytes)} free on its disk"
    return held + free + ("" if cache.writable else ", NOT writable")


def _print_sets(findings: _Findings) -> None:
    xcr0 = "" if findings.cpu.xcr0 is None else f" (XCR0 = {findings.cpu.xcr0:#x})"
    sets = [
        (one.name, _yes_no(one.in_cpu), _yes_no(one.in_os), _yes_no(one.permitted), one.why)
        for one in findings.instruction_sets
    ]
    print_line()
    notes = [
        "CPUID: the CPU says that it has the set; OS: the system saves its registers (XCR0 says which); "
        "permission: the system lets this process use them"
    ]
    print_table(f"Instruction sets{xcr0}", ("set", "CPUID", "OS", "permission", "verdict"), sets, notes=notes)
    entries = [
        (entry.isa, ", ".join(entry.weights), "<- chosen" if entry.chosen else entry.reason)
        for entry in findings.kernel_table
    ]
    print_line()
    notes = ["entry: as TRIMOE_CPU_ISA names it; weights: formats of experts that it computes"]
    print_table("Kernel table, best first", ("entry", "weights", "state"), entries, notes=notes)


def _print_roofline(roofline: Roofline) -> None:
    samples = roofline.bandwidth_samples_gbps
    facts = {
        "memory read": f"{roofline.bandwidth_gbps:.1f} GB/s, median of {len(samples)} "
        f"({min(samples):.1f} to {max(samples):.1f}), the best of {roofline.rounds} rounds, "
        f"{human_bytes(roofline.probe_bytes)} a pass"
    }
    for weights, gflops in roofline.gflops.items():
        facts[f"peak {weights}"] = (
            f"{gflops:.1f} GFLOP/s ({gflops / roofline.bandwidth_gbps:.1f} FLOP per byte read)"
        )
    print_line()
    print_facts(f"Measured with {roofline.threads} thread(s), entry {roofline.isa}", facts)


def _yes_no(answer: bool | None) -> str:
    return "-" if answer is None else "yes" if answer else "no"
