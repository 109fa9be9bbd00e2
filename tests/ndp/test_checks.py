"""Each check of the DIMM emulator sees its subject broken."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.ndp_core import Case, bytes_of, exact, make_problem
from trimoe import _ndp
from trimoe.ndp import Check, Fleet, bandwidth, contention, expert_time, latency, specs
from trimoe.ndp.checks import commands, conservation, core, dram, expert, published, sharing
from trimoe.ndp.core import expert_ffn
from trimoe.ndp.fleet import Fleet as FleetClass

GRADE = specs()[0]

bandwidth_once, contention_once = functools.cache(bandwidth), functools.cache(contention)


def missed(found: Iterator[Check]) -> list[str]:
    return [one.name for one in found if not one.met]


@pytest.mark.parametrize(
    "name",
    [
        "nBL", "nCL", "nRCD", "nRP", "nRAS", "nRC", "nCWL", "nWR", "nRTP", "nCCD_S", "nCCD_L", "nCCD_L_WR",
        "nRRD_S", "nRRD_L", "nFAW", "nWTR_S", "nWTR_L", "nPPD", "nRFC1", "nRTRS",
    ],
)  # fmt: skip
def test_a_timing_off_by_one_is_seen(name: str) -> None:
    off = replace(GRADE, timing_clocks={**GRADE.timing_clocks, name: GRADE.timing_clocks[name] + 1})
    assert len(missed(commands.check_commands(off))) == 1


def test_one_wrong_pair_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(_ndp.Device):
        def earliest(self, command: str, rank: int = 0, group: int = 0, bank: int = 0) -> int:
            return super().earliest(command, rank, group, bank) + ((command, rank) == ("WR", 1))

    monkeypatch.setattr(_ndp, "Device", Late)
    (found,) = commands.check_commands(GRADE)
    assert (found.target, found.met) == (6 * 6 * 4 + 1, False)
    assert found.found == found.target - 6  # WR to the other rank, after each of the six


@pytest.mark.parametrize("grade", specs(), ids=lambda one: one.name)
def test_a_table_that_was_changed_is_seen(grade: Any) -> None:
    first = [next(published.check_published(one)) for one in _changed(grade)]
    assert [one.met for one in first] == [True, False, False]


def _changed(grade: Any) -> list[Any]:
    timings = {**grade.timing_clocks, "nXP": grade.timing_clocks["nXP"] + 1}
    return [grade, replace(grade, clock_ns=0.4), replace(grade, timing_clocks=timings)]


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_other_bandwidths_and_latencies_are_seen(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def off_bandwidth(*args: Any, **case: Any) -> Any:
        found = bandwidth(*args, **{**case, "bursts": 4000})
        loss = found.refresh_loss_pct + (factor - 1) * 3
        return replace(found, bandwidth_gbps=found.bandwidth_gbps * factor, refresh_loss_pct=loss)

    def off_latency(*args: Any, **case: Any) -> Any:
        found = latency(*args, **case)
        shares = {"row_hit_ns": 1, "row_conflict_ns": 1, "loaded_random_ns": 1, "loaded_gbps": 0.3}
        changed = {key: getattr(found, key) * (1 + (factor - 1) * by) for key, by in shares.items()}
        return replace(found, **changed)

    def off_contention(*args: Any, **case: Any) -> Any:
        found = contention(*args, **case)
        return replace(found, undisturbed_gbps=found.undisturbed_gbps * factor)

    monkeypatch.setattr(published, "contention", off_contention)
    for module, check in ((dram, dram.check_dram), (published, published.check_published)):
        monkeypatch.setattr(module, "bandwidth", off_bandwidth)
        monkeypatch.setattr(module, "latency", off_latency)
        met = [one.name for one in check(GRADE) if one.met and "timings of" not in one.name]
        assert met == []


def test_the_closed_form_is_that_of_the_emulator() -> None:
    """Two of them, made apart."""
    for shape in ((5120, 1536, 9), (4096, 1408, 1), (2048, 768, 32)):
        for case in ({"dtype": "int4", "ranks": 2, "layout": "striped"}, {"dtype": "bf16", "ranks": 4}):
            case = {"layout": "localized", **case}
            by_hand = expert.closed_form_ns(GRADE, *shape, **case)  # type: ignore[arg-type]
            found = expert_time(*shape, spec=GRADE.name, **case)  # type: ignore[arg-type]
            assert by_hand == pytest.approx(found.closed_form_ns, rel=1e-12)


@pytest.mark.parametrize("changed", [{"total_ns": 1.04}, {"total_ns": 0.96}, {"weight_bytes": 1.001}])
def test_one_expert_that_is_off_is_seen(monkeypatch: pytest.MonkeyPatch, changed: dict[str, float]) -> None:
    def off(*shape: int, **case: Any) -> Any:
        found = expert_time(*shape, **case)
        if (shape, case["dtype"], case["layout"]) != ((4096, 1408, 4), "int8", "localized"):
            return found
        return replace(found, **{key: type(getattr(found, key))(getattr(found, key) * factor)
                                 for key, factor in changed.items()})  # fmt: skip

    monkeypatch.setattr(expert, "_RANKS", (2,))
    assert missed(expert.check_expert(GRADE)) == []
    monkeypatch.setattr(expert, "expert_time", off)
    assert len(missed(expert.check_expert(GRADE))) == 1


SMALL = core._CASES[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case("bf16", hidden=131, inter=260, tokens=3, bias=True),
        Case("fp16", hidden=70, inter=90, tokens=2, activation="gelu_tanh"),
        Case("int8", hidden=33, inter=21, tokens=4, activation="relu2", gated=False, bias=True),
        Case("int4_g32", hidden=200, inter=136, tokens=5, activation="gelu"),
        Case("int4_g128", hidden=300, inter=270, tokens=2, activation="swiglu_oai", bias=True),
        Case("int4_g64", hidden=64, inter=130, tokens=0),
    ],
    ids=str,
)
def test_the_reference_is_the_ffn_in_double(case: Case) -> None:
    """Against torch on the matrices before they were packed, which shares no code with it."""
    problem = make_problem(case)
    number, _, group = case.number.partition("_g")
    shape = _ndp.CoreShape(
        case.hidden, case.inter, number, int(group or 0), case.activation, case.gated, case.bias
    )
    found = _ndp.core_reference(bytes(problem.layer.memory), bytes_of(problem.x), shape, 0.5)
    values, bounds = (torch.tensor(list(memoryview(one).cast("d"))).view(problem.x.shape) for one in found)
    expected, bound = exact(problem)
    torch.testing.assert_close(values.double(), expected * 0.5, rtol=1e-6, atol=1e-6)
    assert bool((bounds <= bound).all()) and bool((bounds >= 0.4 * bound).all())


def test_a_drawn_expert_has_all_codes_and_is_tame() -> None:
    shape = _ndp.CoreShape(64, 64, "int8")
    drawn = _ndp.draw_expert(shape, 1)
    assert len(drawn) == shape.expert_bytes and set(drawn) == set(range(256))
    assert drawn == _ndp.draw_expert(shape, 1) != _ndp.draw_expert(shape, 2)
    for number in ("bf16", "fp16", "int8", "int4"):
        shape = _ndp.CoreShape(256, 128, number)
        x = _ndp.draw_rows(256 * 4, 3)
        values, bounds = (
            torch.tensor(list(memoryview(one).cast("d")), dtype=torch.float64)
            for one in _ndp.core_reference(_ndp.draw_expert(shape, 4), x, shape, 1.0)
        )
        assert 0.01 < values.std() < 10
        assert bounds.norm() < 0.1 * values.norm()  # or the bound would say nothing


def _broken_ffn(change: Callable[[list[float], int], list[float]]) -> Callable[..., bytes]:
    def run(weights: bytes, x: bytes, *, ranks: int, **shape: Any) -> bytes:
        result = list(memoryview(expert_ffn(weights, x, ranks=ranks, **shape)).cast("f"))
        return bytes(torch.tensor(change(result, ranks)).view(torch.uint8).tolist())

    return run


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y, ranks: y, []),
        (lambda y, ranks: [one * 1.02 for one in y], ["its bound", "the result", "bits that differ"]),
        (lambda y, ranks: y[1:] + y[:1], ["its bound", "the result", "bits that differ"]),
        (lambda y, ranks: [math.nan, *y[1:]], ["its bound", "the result", "bits that differ"]),
        (lambda y, ranks: y if ranks < 8 else [*y[:-1], y[-1] * (1 + 1e-6)], ["bits that differ"]),
    ],
    ids=["right", "scaled", "shifted", "no number", "eight ranks"],
)
def test_wrong_arithmetic_is_seen(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[float], int], list[float]], what: list[str]
) -> None:
    monkeypatch.setattr(core, "_CASES", SMALL)
    monkeypatch.setattr(core, "expert_ffn", _broken_ffn(change))
    found = list(core.check_core())
    assert all(math.isfinite(one.found) for one in found)
    for part in ("its bound", "the result", "bits that differ"):
        assert {one.met for one in found if part in one.name} == {part not in what}, part


@pytest.mark.parametrize("broken", [bytes, lambda x: x])
def test_dimms_that_compute_something_else_are_seen(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[Any], Any]
) -> None:
    class Other(FleetClass):
        def place(self, expert: int, data: Any, dimm: int, **shape: Any) -> None:
            wrong = bytes([data[0] ^ 1]) + data[1:] if broken is bytes else data
            super().place(expert, wrong, dimm, **shape)

    monkeypatch.setattr(core, "_CASES", SMALL[:1])
    monkeypatch.setattr(core, "Fleet", Other)
    assert [("bits that differ" in name) for name in missed(core.check_core())] == [True] * (broken is bytes)


def _changed_by(function: Callable[..., Any], **changes: Callable[[Any], Any]) -> Callable[..., Any]:
    def run(*args: Any, **case: Any) -> Any:
        found = function(*args, **case)
        return replace(found, **{name: change(getattr(found, name)) for name, change in changes.items()})

    return run


def _fewer(name: str, count: int) -> Callable[[dict[str, int]], dict[str, int]]:
    return lambda commands: {**commands, name: commands[name] - count}


@pytest.mark.parametrize(
    ("name", "changed", "what"),
    [
        ("bandwidth", {"commands": _fewer("RD", 1)}, "bytes moved"),
        ("bandwidth", {"commands": _fewer("WR", -1)}, "bytes moved"),
        ("bandwidth", {"commands": lambda commands: {**commands, "REF": 0}}, "refreshes late"),
        ("contention", {"reads": lambda count: count + 1}, "bytes moved"),
        ("contention", {"host_served_once": lambda count: count - 1}, "bytes moved"),
        ("contention", {"ndp_served": lambda count: max(0, count - 1)}, "bytes moved"),
        ("contention", {"host_refreshes": lambda count: count - 9}, "refreshes late"),
        ("contention", {"ndp_refreshes": lambda count: count + 9}, "refreshes late"),
    ],
)
def test_what_is_lost_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, changed: dict[str, Callable[[Any], Any]], what: str
) -> None:
    real = {"bandwidth": bandwidth_once, "contention": contention_once}[name]
    other = {"bandwidth": "_sharing", "contention": "_queues"}[name]
    monkeypatch.setattr(conservation, other, lambda spec, tally: None)
    monkeypatch.setattr(conservation, "_foreign_in_traces", lambda spec: (0, 0))
    monkeypatch.setattr(conservation, "_fleet", lambda spec: (1, 1, 0))
    monkeypatch.setattr(conservation, name, _changed_by(real, **changed))
    (found,) = missed(conservation.check_conservation(GRADE))
    assert what in found


def test_refreshes_by_another_than_the_owner_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _ndp.sharing

    def wrong(*args: Any, **case: Any) -> dict[str, Any]:
        found = real(*args, **case)
        if case.get("traced"):
            at = next(index for index, one in enumerate(found["trace"]) if one[1] == "REF")
            clock, command, bank, row, by, tag = found["trace"][at]
            found["trace"][at] = (clock, command, bank, row, {"host": "ndp", "ndp": "host"}[by], tag)
        return found

    class Careless(_ndp.RefreshLedger):
        """Lets whoever asks refresh, by handing the rank over and back."""

        def issue(self, by: str, clock: int) -> None:
            owner = self.owner
            self.transfer(by, clock)
            super().issue(by, clock)
            self.transfer(owner, clock)

    class Native:
        def __init__(self, native: Any) -> None:
            self.native, self.seen = native, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.native, name)

        def counters(self, dimm: int) -> dict[str, Any]:
            """Has host and NDP refresh at once from some time on."""
            found = self.native.counters(dimm)
            self.seen += 1
            if self.seen > 20:
                found["refreshes"] = [(host + self.seen, ndp - self.seen) for host, ndp in found["refreshes"]]
            return found

    class Double(Fleet):
        def __init__(self, *args: Any, **case: Any) -> None:
            super().__init__(*args, **case)
            self.native: Any = Native(self.native)

    monkeypatch.setattr(_ndp, "sharing", wrong)
    monkeypatch.setattr(_ndp, "RefreshLedger", Careless)
    monkeypatch.setattr(conservation, "Fleet", Double)
    assert conservation._foreign_in_traces(GRADE)[0] == 3  # one in each mode
    assert conservation._foreign_in_ledger(GRADE) > 100
    issued, due, foreign = conservation._fleet(GRADE)
    assert issued == due and foreign > 0


def test_a_dimm_that_forgets_a_refresh_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Fleet):
        def advance(self, dimm: int, to_ns: float | None = None) -> float:
            """A tREFI further than the DIMM knows of."""
            return super().advance(dimm, to_ns) + 3900

    monkeypatch.setattr(conservation, "Fleet", Lazy)
    issued, due, _ = conservation._fleet(GRADE)
    assert issued < due


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({"ndp_share": lambda share: share * 0.95}, 2),
        ({"ndp_share": lambda share: share * 1.05}, 2),
        ({"host_gbps": lambda gbps: gbps * 0.9}, 3),
        ({"switches": lambda count: count * 2}, 1),
        ({"ndp_served": lambda count: count * 0.95}, 1),
    ],
)
def test_another_share_is_seen(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Callable[[Any], Any]], count: int
) -> None:
    monkeypatch.setattr(sharing, "contention", _changed_by(contention_once, **changed))
    found = list(sharing.check_sharing(GRADE))
    assert all("(model)" in one.name for one in found)
    assert len(missed(iter(found))) == count
