"""The executor's back end over the clock, layer by layer: what is put on it, and what is read off it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support import simple_machine as simple
from support.policies import NDP, ask, cost_of, decide, policy_of, random_counts, residents, states_of
from support.tiny_policy import TinyPolicy, everything
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, STRIPED
from trimoe.executor.loop import Executor
from trimoe.executor.model_clock import ModelClock
from trimoe.placement import Keep, LayerPlan, Move, Prefetch, Progress, Relayout, Residency, Ticket
from trimoe.placement.moves import BACKGROUND, DEMAND
from trimoe.policies import Deployment, LayerDone, LayerStep, Loads

BATCH, CONTEXT = 8, 40
HERE = Deployment(BATCH, BATCH)
ALL = np.full(simple.EXPERTS, BATCH)
NOBODY = np.zeros(simple.EXPERTS, np.int64)
GPU_NS, FETCH_NS = simple.expert_gpu_ns(BATCH), simple.FETCH_NS


def attention(moe: bool = True, requests: int = BATCH) -> float:
    return simple.attention_ns(requests, CONTEXT, moe=moe)


class Layers:
    """MoE layers one after the other, with a policy that moves what it is told to."""

    def __init__(
        self, *resident: int, slots: int = 4, keep: bool = True, deployment: Deployment = HERE
    ) -> None:
        cost = simple.cost()
        self.states = [Residency(simple.EXPERTS, slots=slots, resident=resident) for _ in range(3)]
        self.model = ModelClock(cost, self.states, keep=keep)
        self.model.begin_step(deployment, 1)
        self.policy = TinyPolicy(cost, deployment, self.place, self.act)
        self.executor = Executor(self.policy, self.states, self.model)
        self.moves: tuple[Move, ...] = ()
        self.kept: tuple[Keep, ...] = ()
        self.domain = GPU

    def place(self, step: LayerStep) -> LayerPlan:
        return replace(everything(self.domain)(step), keep=self.kept)

    def act(self, step: LayerStep) -> tuple[Move, ...]:
        return self.moves

    def layer(self, layer: int, counts: np.ndarray, *moves: Move, keep: tuple[Keep, ...] = ()) -> LayerStep:
        """On to its router, and its experts; what the policy was asked."""
        self.moves, self.kept = moves, keep
        self.model.attend(CONTEXT, moe=True, next_moe=True)
        self.model.route(layer)
        decide(self.executor, "decode", 0, layer, counts)
        return self.policy.steps[-1]

    def tickets(self) -> list[Ticket]:
        return [one for one in self.policy.observed if isinstance(one, Ticket)]

    def spans(self, resource: int) -> list[tuple[str, float, float]]:
        """Name, start and end of all that occupied a resource."""
        clock = self.model.clock
        return [(clock.tasks[task].name, start, end) for start, end, task in clock.intervals[resource]]


H2D = simple.cost().resources.h2d


def test_a_demand_that_joins_overtakes() -> None:
    """Three prefetches queue at the copy engine; the layer that needs the last of them waits for two."""
    layers = Layers(0, 1)
    first = layers.layer(0, NOBODY, Prefetch(1, 2), Prefetch(2, 2), Prefetch(2, 3), Prefetch(1, 3))
    needs = np.isin(np.arange(4), [3]) * BATCH
    second = layers.layer(1, needs)
    assert second.now_ns == pytest.approx(first.now_ns + attention()) and attention() < FETCH_NS
    third = layers.layer(2, NOBODY)
    copies = [(end - start) for _, start, end in layers.spans(H2D)]
    assert copies == pytest.approx([FETCH_NS] * len(copies))
    # The first had begun, then the demand's; the layer after it knows that it is there.
    assert third.now_ns == pytest.approx(first.now_ns + 2 * FETCH_NS + attention())
    assert [one.move for one in layers.tickets()] == [Prefetch(1, 2), Prefetch(1, 3)]
    assert residents(layers.states[1]) == {0, 1, 2, 3} and residents(layers.states[2]) == {0, 1}
    assert layers.model.moved.fetched == 0 and layers.model.moved.gpu_hits == 0
    record = layers.model.records[1]
    assert not record.load.fetch.any() and record.load.gpu[simple.cost().resources.gpu] == pytest.approx(
        GPU_NS
    )
    assert layers.executor.prefetched == 4
    assert [one.priority for one in layers.tickets()] == [BACKGROUND, DEMAND]


def test_a_demand_fetches_the_others_itself() -> None:
    layers = Layers(0, 1)
    layers.layer(0, NOBODY, Prefetch(1, 2))
    layers.layer(1, ALL)
    layers.model.end_step()
    layers.model.finish()
    assert [name for name, _, _ in layers.spans(H2D)] == ["prefetch", "fetch"]
    assert layers.model.moved.fetched == 1 and layers.model.moved.gpu_hits == 2
    assert layers.model.records[1].plan.fetch == (2, 3)


def test_what_is_kept_has_come_with_the_layers_fetches() -> None:
    layers = Layers(0, 1, slots=4)
    layers.layer(0, NOBODY)
    asked = layers.layer(1, ALL, keep=(Keep(2), Keep(3)))
    assert set(asked.residency.pending) == {2, 3} and residents(asked.residency) == {0, 1}
    layers.layer(2, NOBODY)
    assert residents(layers.states[1]) == {0, 1, 2, 3}
    ends = {one.ended_ns for one in layers.tickets()}
    assert ends == {layers.policy.steps[-1].now_ns}, "told when the next router has spoken"
    assert [one.progress for one in layers.tickets()] == [Progress.DONE] * 2


def test_what_is_kept_may_be_there_before_the_layer_is_done() -> None:
    layers = Layers(0, 1)
    layers.layer(0, np.full(4, 100_000), keep=(Keep(2), Keep(3)))
    names = [one.name for one in layers.model.clock.tasks]
    layers.model.clock.run(until=names.index("fetch"))
    layers.executor.settle()
    assert residents(layers.states[0]) == {0, 1, 2, 3}
    assert not layers.model.clock.ended(names.index("experts"))


def test_layers_are_told_before_what_they_held_up() -> None:
    """A copy that replaces whom the layer uses holds once that layer is done: both by the next router."""
    layers = Layers(0, 1, slots=2)
    layers.layer(0, NOBODY, Prefetch(1, 2, evict=0))
    layers.layer(1, np.array([BATCH, BATCH, 0, 0]))
    for _ in range(3):
        layers.layer(2, np.full(4, 5000))
    told = [one.layer if isinstance(one, LayerDone) else one.move for one in layers.policy.observed]
    assert told.index(Prefetch(1, 2, evict=0)) > told.index(1)
    assert residents(layers.states[1]) == {1, 2}


def test_a_move_that_has_not_begun_is_taken_off() -> None:
    """Behind a long copy its time runs out; what has begun goes on, and the slot is free for another one."""
    layers = Layers(0, 1, slots=3)
    late = attention() / 2
    layers.layer(0, NOBODY, Prefetch(2, 2, deadline_ns=late), Prefetch(1, 2, deadline_ns=late))
    assert late < layers.layer(1, NOBODY).now_ns < FETCH_NS
    [gone] = layers.tickets()
    assert (gone.move.layer, gone.progress) == (1, Progress.CANCELLED)  # type: ignore[union-attr]
    assert layers.states[1].free == 1 and set(layers.states[2].pending) == {2}
    layers.layer(2, NOBODY, Prefetch(1, 3))
    layers.model.clock.run()
    layers.executor.settle()
    assert [name for name, _, _ in layers.spans(H2D)] == ["prefetch", "prefetch"]
    assert residents(layers.states[1]) == {0, 1, 3} and residents(layers.states[2]) == {0, 1, 2}
    assert layers.executor.prefetched == 2, "what was taken off was never copied"


def test_a_relayout_that_is_taken_off_was_none() -> None:
    layers = Layers(0, 1)
    layers.layer(0, NOBODY, Relayout(1, 2, 1), Relayout(2, 2, 1, deadline_ns=1.0))
    layers.layer(1, NOBODY)
    assert [one.progress for one in layers.tickets()] == [Progress.CANCELLED]
    assert layers.executor.relaid == 1 and layers.states[2].layout[2] == STRIPED


def test_it_knows_when_each_resource_will_be_free() -> None:
    """All that waits counts, of moves that nobody waits for as well."""
    layers = Layers(0, 1)
    res, first = simple.cost().resources, layers.layer(0, NOBODY, Prefetch(1, 2), Prefetch(2, 2))
    assert first.free_at_ns == pytest.approx(np.full(len(res), first.now_ns))
    second = layers.layer(1, NOBODY)
    assert second.free_at_ns[res.h2d] == pytest.approx(first.now_ns + 2 * FETCH_NS)
    assert second.free_at_ns[res.d2h] == second.now_ns
    assert second.idle_ns[res.h2d] == pytest.approx(0)
    assert second.idle_ns[res.d2h] == pytest.approx(second.now_ns - first.now_ns)


def test_it_knows_what_a_layer_took_by_domain() -> None:
    """What each computed; copies are no domain's."""
    layers = Layers(0)
    layers.layer(0, NOBODY)

    def split(step: LayerStep) -> LayerPlan:
        return LayerPlan(np.array([GPU, GPU, CPU, IDLE]), (0, 1, 2), (1,))

    layers.policy.place = split
    layers.layer(1, np.array([BATCH, BATCH, BATCH, 0]))
    layers.layer(2, np.array([BATCH, BATCH, BATCH, 0]))
    done = [one for one in layers.policy.observed if isinstance(one, LayerDone)][-1]
    assert (done.phase, done.step, done.layer, done.plan.order) == ("decode", 0, 1, (0, 1, 2))
    assert done.took_ns == pytest.approx({CPU: simple.expert_cpu_ns(BATCH), GPU: 2 * GPU_NS})
    assert done.predicted_ns == done.took_ns, "the clock is the cost core's"


def test_it_knows_what_dimms_took() -> None:
    policy, cost = policy_of("trimoe"), cost_of(NDP)
    states = states_of(policy)
    counts = random_counts(np.random.default_rng(0), cost, 32)
    model = ModelClock(cost, states, keep=False)
    model.begin_step(Deployment(32, 32), 1)
    model.attend(CONTEXT, moe=True, next_moe=True)
    model.route(0)
    step = LayerStep.alone(0, counts, states, len(cost.resources))
    plan = ask(policy, 0, counts, states)
    model.submit(step, plan, (), ())
    model.end_step()
    model.finish()
    [done] = model.settle()
    assert isinstance(done, LayerDone) and not list(model.settle()), "once"
    total = Loads(cost).of_plan(plan, counts, states[0]).total
    assert set(done.took_ns) == {CPU, GPU, *range(FIRST_DIMM, FIRST_DIMM + 16)}
    assert sum(ns > 0 for domain, ns in done.took_ns.items() if domain >= FIRST_DIMM) > 4
    for dimm in range(16):
        assert done.took_ns[FIRST_DIMM + dimm] == total[cost.resources.dimm(dimm)]


@pytest.mark.parametrize("keep", [True, False])
def test_records_hold_a_layer_as_it_was_where_timelines_are_kept(keep: bool) -> None:
    layers = Layers(0, 1, keep=keep)
    layers.layer(0, ALL, keep=(Keep(2),))
    layers.layer(1, NOBODY)
    record = layers.model.records[0]
    assert (record.layer, record.counts.tolist(), record.plan.fetch) == (0, [BATCH] * 4, (2, 3))
    assert residents(record.residency) == ({0, 1} if keep else {0, 1, 2})
    assert (record.residency is layers.states[0]) == (not keep)


def test_streams_are_under_way_before_their_layer_and_used_once() -> None:
    ahead = replace(HERE, stream_ahead=True)
    layers = Layers(0, slots=1, deployment=ahead)
    layers.layer(0, ALL)
    assert layers.model.arriving(0) == frozenset() and layers.model.arriving(1) == {1, 2, 3}
    assert layers.policy.steps[0].free_at_ns[H2D] == pytest.approx(6 * FETCH_NS)
    layers.layer(1, ALL)
    assert layers.model.arriving(1) == frozenset() and layers.model.arriving(2) == {1, 2, 3}
    assert layers.model.records[1].plan.fetch == (1, 2, 3) and layers.model.moved.fetched == 6
    assert layers.model.records[1].load.fetch[H2D] == pytest.approx(3 * FETCH_NS)
    layers.model.clock.run()
    assert [name for name, _, _ in layers.spans(H2D)] == ["stream"] * 3, "of the layer after, too, and once"


def test_the_next_layers_may_be_of_other_requests() -> None:
    """Half as many of them: another deployment from one layer to the next."""
    layers = Layers(0, 1, 2, 3)
    begun = [layers.layer(0, ALL).now_ns, layers.layer(1, ALL).now_ns]
    layers.model.begin_step(replace(HERE, batch=BATCH // 2, micro_batch=BATCH // 2), 1)
    begun.append(layers.layer(2, ALL // 2).now_ns)
    passed = np.diff(begun)
    assert passed[0] == pytest.approx(4 * GPU_NS + attention())
    assert passed[1] == pytest.approx(4 * GPU_NS + attention(requests=BATCH // 2))


def test_a_move_takes_the_way_from_where_its_expert_lies() -> None:
    layers, res = Layers(0, 1), simple.cost().resources
    layers.layer(0, NOBODY, Relayout(1, 2, 1))
    for _ in range(6):
        layers.layer(2, np.full(4, 5000))
    assert layers.states[1].layout[2] == 1
    layers.layer(0, NOBODY, Prefetch(1, 2))
    layers.model.clock.run()
    reads = [[name for name, _, _ in layers.spans(res.channel(one))].count("prefetch") for one in range(2)]
    assert reads == [0, 1], "from its one place"
