"""Experts on emulated DIMMs lie where residencies say, move when moves end, and stay when DIMMs fail."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.deciders import DIMMS, EXPERTS, LAYERS, TIGHT, decided, passes
from trimoe import _ndp, _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT, STRIPED
from trimoe.errors import InputError, NdpError
from trimoe.hf.stored_experts import stored_experts
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.ndp import Fleet
from trimoe.placement import Progress, Relayout, Residency, Ticket
from trimoe.policies import LayerDone
from trimoe.runtime.attached import Attached, DimmWarning
from trimoe.runtime.expert_homes import ExpertHomes, fleet_of


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield deciders.load()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain(model: Any) -> torch.Tensor:
    return passes(model)


@pytest.fixture
def homes(model: Any) -> Iterator[ExpertHomes]:
    """Of two layers, on four DIMMs."""
    found = ExpertHomes([module.layer for module in stored_experts(model)[:2]], Fleet(4))
    yield found
    take_back(found._layers)


def take_back(layers: Sequence[ExpertLayer]) -> None:
    for layer in layers:
        _runtime.detach(layer.handle)


def key_of(homes: ExpertHomes, layer: int, expert: int) -> int:
    return _ndp.expert_key(homes._layers[layer].handle, expert)


def layout_of(homes: ExpertHomes, layer: int) -> list[int]:
    """As a residency tells it."""
    lie = [homes.fleet.where(key_of(homes, layer, expert)) for expert in range(EXPERTS)]
    return [one.dimm if one.layout == "localized" else STRIPED for one in lie]


def bytes_of(homes: ExpertHomes, layer: int, expert: int) -> bytes:
    return homes.fleet.bytes_of(key_of(homes, layer, expert))


def residencies(*layouts: Any) -> list[Residency]:
    return [Residency(EXPERTS, layout=one) for one in layouts]


# --- alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", ["striped", "split"])
def test_everything_where_a_phase_begins_with_it(model: Any, spread: str) -> None:
    layers = [module.layer for module in stored_experts(model)[:2]]
    homes = ExpertHomes(layers, Fleet(4), spread=spread)
    size = layers[0].spec.layer_bytes // EXPERTS
    wanted = [bytes(one.memory[e * size : (e + 1) * size]) for one in layers for e in range(EXPERTS)]
    draw = np.random.default_rng(0)
    for _ in range(3):
        layouts = draw.integers(-1, 4, (2, EXPERTS))
        homes.lay_out(residencies(*layouts))
        for layer, layout in enumerate(layouts):
            assert layout_of(homes, layer) == layout.tolist()
            kinds = {homes.fleet.where(key_of(homes, layer, expert)).layout for expert in range(EXPERTS)}
            assert kinds == {"localized", spread}
    if spread == "striped":
        found = [bytes_of(homes, layer, expert) for layer in range(2) for expert in range(EXPERTS)]
        assert found == wanted
    take_back(layers)
    assert homes.fleet.stats()["dimms"][0]["experts"] == 0
    assert [_runtime.codes(one.handle) for one in layers] == [[CPU], [CPU]]


@pytest.mark.parametrize(("before", "after"), [(0, 3), (0, STRIPED), (STRIPED, 2), (3, 3)])
def test_a_move(homes: ExpertHomes, before: int, after: int) -> None:
    homes.lay_out(residencies(before, before))
    was = bytes_of(homes, 1, 5)
    assert homes.carry_out(Relayout(1, 5, after))
    wanted = [before] * EXPERTS
    assert layout_of(homes, 0) == wanted
    wanted[5] = after
    assert layout_of(homes, 1) == wanted and bytes_of(homes, 1, 5) == was


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (3, STRIPED), (STRIPED, 3), (STRIPED, 1)])
def test_a_move_that_needs_a_dead_dimm_fails(homes: ExpertHomes, before: int, after: int) -> None:
    homes.lay_out(residencies(before, before))
    homes.fleet.kill(3)
    assert not homes.carry_out(Relayout(0, 7, after))
    assert homes.failed == {3: "TIMEOUT"}
    assert layout_of(homes, 0) == [before] * EXPERTS


def test_what_a_failed_dimm_has_or_should_get_stays_where_it_is(homes: ExpertHomes) -> None:
    homes.lay_out(residencies(0, 3))
    homes.fleet.kill(3)
    homes.lay_out(residencies(*([1, 3] * 16 for _ in range(2))))
    assert homes.failed == {3: "TIMEOUT"}
    assert layout_of(homes, 0) == [1, 0] * 16 and layout_of(homes, 1) == [3] * EXPERTS


def test_who_can_run_what(homes: ExpertHomes) -> None:
    layouts = [2, 3, STRIPED] + [0] * (EXPERTS - 3)
    homes.lay_out(residencies(layouts, layouts))
    codes = (FIRST_DIMM + 2, FIRST_DIMM + 3, SPLIT)

    def can() -> list[list[bool]]:
        return [[homes.can_run(0, expert, code) for code in codes] for expert in range(3)]

    assert can() == [[True, False, False], [False, True, False], [True, True, False]]
    homes.failed[3] = "ECC"
    assert can() == [[True, False, False], [False] * 3, [False] * 3], "a stripe of it is on DIMM 3"


def test_split_experts_are_everyone_s(model: Any) -> None:
    homes = ExpertHomes([stored_experts(model)[0].layer], Fleet(2), spread="split")
    assert homes.can_run(0, 4, SPLIT) and not homes.can_run(0, 4, FIRST_DIMM)
    homes.failed[1] = "ECC"
    assert not homes.can_run(0, 4, SPLIT)
    take_back([stored_experts(model)[0].layer])


def test_formats_that_no_core_computes_are_refused() -> None:
    layers = [module.layer for module in stored_experts(deciders.load(weights="fp8"))]
    with pytest.raises(InputError, match="experts of bf16, int8, int4 for an NDP core; got fp8"):
        ExpertHomes(layers, Fleet(2))
    assert _runtime.codes(layers[0].handle) == [CPU]


def test_a_fleet_is_as_its_profile_says() -> None:
    ndp = deciders.cost_of(DIMMS).profile.ndp
    assert ndp is not None
    fleet = fleet_of(ndp)
    assert fleet.dimms == ndp.dimms == 16


# --- under a policy -----------------------------------------------------------------------------------


class Watched:
    """A policy that is listened to: where everything lies must be what residencies say, always."""

    def __init__(self, attached: Attached) -> None:
        assert attached.homes is not None
        self.homes: ExpertHomes = attached.homes
        self.failing = False  # whether a DIMM has failed
        self.ended: list[Ticket] = []
        self.before: dict[tuple[int, int], bytes] = {}
        self.policy = attached.policy
        self._plan, self._observe = self.policy.plan, self.policy.observe
        self.policy.plan = self.plan  # type: ignore[method-assign]
        self.policy.observe = self.observe  # type: ignore[method-assign]

    def plan(self, step: Any) -> Any:
        if not self.before:
            self.before = {
                (layer, expert): bytes_of(self.homes, layer, expert)
                for layer in range(LAYERS)
                for expert in range(EXPERTS)
            }
        if not self.failing:
            for layer, residency in enumerate(step.residencies):
                assert layout_of(self.homes, layer) == residency.layout.tolist()
        return self._plan(step)

    def observe(self, done: LayerDone | Ticket) -> None:
        if isinstance(done, Ticket):
            self.ended.append(done)
        self._observe(done)

    def moved(self, progress: Progress = Progress.DONE) -> list[Relayout]:
        return [one.move for one in self.ended if isinstance(one.move, Relayout) and one.progress is progress]


@pytest.mark.parametrize(("name", "machine"), [("trimoe", TIGHT), ("trimoe", DIMMS), ("hermes", TIGHT)])
def test_what_a_policy_moves_has_moved(model: Any, plain: torch.Tensor, name: str, machine: str) -> None:
    """From the moment on in which its residency says so, every byte."""
    attached = decided(model, name, machine)
    watched = Watched(attached)
    assert torch.equal(passes(model), plain)
    moves = watched.moved()
    assert moves and attached.driver.use.moving_ns > 0
    for (layer, expert), was in watched.before.items():
        assert bytes_of(watched.homes, layer, expert) == was
    attached.driver.finish()
    done = attached.driver.use.as_dict()["moves"]["done"]
    assert done >= len(watched.moved())
    last = {(one.layer, one.expert): one.target for one in watched.moved()}
    for (layer, expert), target in last.items():
        assert layout_of(watched.homes, layer)[expert] == target
    attached.close()


def used_dimm(attached: Attached) -> int:
    """The DIMM that ran most since the last reset."""
    on_dimms = {code: use.tokens for code, use in attached.telemetry.uses.items() if code >= FIRST_DIMM}
    return max(on_dimms, key=lambda code: on_dimms[code]) - FIRST_DIMM


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["host", "core"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [("monde", "kill"), ("monde", "ecc"), ("monde", "timeout"), ("hermes", "kill"), ("trimoe", "kill")],
)
def test_a_dimm_that_fails_in_the_middle_is_done_without(
    model: Any, plain: torch.Tensor, name: str, fault: str, arithmetic: str
) -> None:
    """The call is run again, all later ones keep off it, and a text after this one does as well."""
    attached = decided(model, name, DIMMS, arithmetic=arithmetic)
    assert attached.homes is not None
    passes(model)
    attached.driver.finish()
    bad = used_dimm(attached)
    fleet = attached.homes.fleet
    attached.driver.reset()
    if fault == "kill":
        fleet.kill(bad)
    else:  # of a system that moves no experts: it befalls a call
        fleet.inject(bad, fleet.stats()["dimms"][bad]["started"] + 2, fault)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DimmWarning)
        found = [passes(model) for _ in range(2)]
    attached.driver.finish()
    mine = [str(one.message) for one in told if one.category is DimmWarning]
    assert attached.driver.use.reruns == len(mine) <= 1
    code = "ECC" if fault == "ecc" else "TIMEOUT"
    assert attached.homes.failed == {bad: code}
    assert mine == [f"DIMM {bad}: {code}; what they have runs on the CPU"] or name != "monde"
    if arithmetic == "host":
        assert all(torch.equal(one, plain) for one in found)
    uses = attached.telemetry.uses
    assert sum(one.tokens for one in uses.values()) == 2 * (9 + deciders.STEPS) * LAYERS * deciders.TOPK
    attached.driver.reset()
    passes(model)
    attached.driver.finish()
    assert FIRST_DIMM + bad not in attached.telemetry.uses and not attached.driver.use.reruns
    assert GPU not in attached.telemetry.uses
    attached.close()


@pytest.mark.parametrize("name", ["trimoe", "hermes"])
def test_moves_to_a_dead_dimm_fail_and_nothing_else_does(model: Any, plain: torch.Tensor, name: str) -> None:
    attached = decided(model, name, TIGHT)
    watched = Watched(attached)
    passes(model)
    attached.close()
    targets = [one.target for one in watched.moved() if one.target != STRIPED]
    bad = max(targets, key=targets.count)
    attached = decided(model, name, TIGHT)
    watched = Watched(attached)
    watched.failing = True
    watched.homes.fleet.kill(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DimmWarning)
        assert torch.equal(passes(model), plain)
    attached.driver.finish()
    failed = watched.moved(Progress.FAILED)
    assert failed and set(watched.homes.failed) == {bad}
    assert attached.driver.use.as_dict()["moves"]["failed"] == len(failed)

    attached.close()


def test_another_error_is_not_the_dimm_s(model: Any, plain: torch.Tensor) -> None:
    """Though a DIMM has failed before, unnoticed by anyone who could have cleared it."""
    attached = decided(model, "monde", DIMMS)
    assert attached.homes is not None
    passes(model, 1)
    module = stored_experts(model)[0]
    fleet = attached.homes.fleet
    fleet.kill(5)
    with pytest.raises(Exception, match="TIMEOUT"):
        fleet.relayout(key_of(attached.homes, 0, 1), "localized", dimm=5)
    attached.driver.reset()
    hidden = torch.ones(1, 160, dtype=torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DimmWarning)
        with pytest.raises((RuntimeError, InputError)) as caught:
            module(hidden, torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4))
        assert not isinstance(caught.value.__cause__, NdpError)

        def raising(_: Any) -> Any:
            raise RuntimeError("of the policy")

        plan, attached.policy.plan = attached.policy.plan, raising  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="of the policy"):
            module(hidden, torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4))
        attached.policy.plan = plan  # type: ignore[method-assign]
    assert not attached.homes.failed and not attached.driver.use.reruns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DimmWarning)
        assert torch.equal(passes(model), plain)
    assert set(attached.homes.failed) <= {5}
    attached.close()


def test_a_warning_may_be_an_error(model: Any, plain: torch.Tensor) -> None:
    attached = decided(model, "monde", DIMMS)
    assert attached.homes is not None
    passes(model, 1)
    attached.driver.finish()
    attached.homes.fleet.kill(used_dimm(attached))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DimmWarning)
        with pytest.raises(DimmWarning):
            passes(model)
    assert torch.equal(passes(model), plain)
    attached.close()
