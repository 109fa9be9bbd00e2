"""The static bound: on loops whose answer is known, and on the tile kernels as they ship."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from support.amx import BUILD, ROOT
from trimoe.hardware.cpu import features


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("amx_bound", ROOT / "bench" / "amx_bound.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["amx_bound"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


amx_bound = _load()


def listing(*lines: str) -> str:
    """A function of the given instructions, 16 bytes apart; `@n` is the address of the n-th."""
    numbered = [f"  {16 * i:x}:\t{line.replace(' ', chr(9), 1)}" for i, line in enumerate(lines)]
    for i in reversed(range(len(lines))):
        numbered = [line.replace(f"@{i}", f"{16 * i:x} <f+{16 * i:#x}>") for line in numbered]
    return "\n".join(["0000000000000000 <f>:", *numbered])


LOADS = (
    "tileloadd (%rax,%rbx,1),%tmm4",
    "tileloadd (%rcx,%rbx,1),%tmm5",
    "tileloadd (%rdx,%rbx,1),%tmm6",
    "tileloadd (%rsi,%rbx,1),%tmm7",
)
MULTIPLIES = tuple(f"tdpbf16ps %tmm{6 + c % 2},%tmm{4 + c // 2},%tmm{c}" for c in range(4))
BLOCK = (*LOADS, *MULTIPLIES)


def only(text: str, **options: object) -> object:
    (found,) = amx_bound.bounds(text, **options)
    return found


def test_two_by_two_tiles_keep_the_multiplier_busy() -> None:
    found = only(listing(*BLOCK, "jne @0", "ret"))
    assert (found.multiplies, found.loads_a, found.loads_b) == (4, 2, 2)
    assert (found.cycles_l1, found.bound_l1) == (64.0, 1.0)
    assert found.loads_from_l2 == 4 and found.cycles_l2 == 4 * amx_bound.Costs.load_l2


def test_rows_that_stay_in_l1_leave_the_tiles_of_b_to_l2() -> None:
    found = only(listing(*BLOCK, "jne @0", "ret"), a_bytes=16 << 10)
    assert found.loads_from_l2 == 2 and found.bound_l2 == 1.0


def test_one_load_a_multiply_more_than_the_ports_take() -> None:
    found = only(listing(*LOADS, "tdpbf16ps %tmm6,%tmm4,%tmm0", "jne @0", "ret"))
    assert found.cycles_l1 == 32.0 and found.bound_l1 == 0.5


def test_a_slow_accumulation_is_a_chain() -> None:
    costs = amx_bound.Costs(accumulate=52)
    one = only(listing(LOADS[0], LOADS[2], "tdpbf16ps %tmm6,%tmm4,%tmm0", "jne @0", "ret"), costs=costs)
    assert (one.cycles_l1, one.bound_l1) == (52.0, 0.308)
    assert only(listing(*BLOCK, "jne @0", "ret"), costs=costs).bound_l1 == 1.0


def test_stores_in_the_loop_count() -> None:
    stores = tuple(f"tilestored %tmm{c},(%rdi,%rbx,1)" for c in range(4))
    found = only(listing(*BLOCK, *stores, *stores, "jne @0", "ret"))
    assert found.cycles_l1 == pytest.approx(8 * 16, abs=1)


def test_the_shortest_way_round_leaves_optional_work_out() -> None:
    """0: the head; 5 to 7 a loop that fetches ahead; 15, 16 a part that the compiler has put out of line."""
    text = listing(
        *LOADS,
        "je @8",
        "prefetcht1 (%r8)",
        "sub $1,%r9",
        "jne @5",
        *MULTIPLIES[:3],
        "je @15",
        "tdpbf16ps %tmm7,%tmm5,%tmm3",
        "jne @0",
        "ret",
        "nop",
        "jmp @12",
    )
    found = only(text)
    assert found.multiplies == 4 and found.bound_l1 == 1.0
    assert found.instructions == 4 + 1 + 3 + 1 + 1 + 1


def test_loops_around_and_beside_are_not_counted() -> None:
    inner = [*BLOCK, "jne @2"]
    text = listing(
        "xor %eax,%eax", "nop", *inner, "add $1,%rax", "jne @1", "vaddps %zmm0,%zmm1,%zmm2", "jne @13", "ret"
    )
    found = only(text)
    assert found.address == "0x20" and found.instructions == 9
    assert amx_bound.bounds(listing("vaddps %zmm0,%zmm1,%zmm2", "jne @0", "ret")) == []


def test_a_load_without_an_index_is_seen() -> None:
    found = only(listing("tileloadd (%rax),%tmm4", *BLOCK[1:], "jne @0", "ret"))
    assert found.loads_without_index == 1


@pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64")
def test_every_shipped_loop_keeps_the_multiplier_busy() -> None:
    """At least 0.95 with tiles in L1, two multiplies to three loads or better; see docs/amx.md."""
    objects = list(BUILD.rglob("trimoe_amx.dir/**/*.o"))
    assert objects, f"no object code of the target trimoe_amx in {BUILD}"
    found = [bound for path in objects for bound in amx_bound.bounds(amx_bound.disassemble(path))]
    assert len(found) >= 12  # six kernels, for up to 16 rows and for more
    for bound in found:
        assert bound.bound_l1 >= 0.95, bound
        assert (bound.multiplies % 2, bound.loads_without_index) == (0, 0), bound
        assert (bound.loads_a, bound.loads_b) in {
            (n * steps, 2 * steps)
            for n in (1, 2)
            for steps in range(1, 9)
            if n * 2 * steps == bound.multiplies
        }, bound
    assert sum(bound.multiplies >= 4 for bound in found) >= 6
