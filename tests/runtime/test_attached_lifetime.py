"""What comes and goes with a policy, and what goes wrong on the way: the model is as it was."""

from __future__ import annotations

import contextlib
import copy
import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.deciders import (
    DECODE,
    DIMMS,
    LAYERS,
    PREFILL,
    WHOLE,
    check_plain,
    cost_of,
    decided,
    passes,
    policy_of,
)
from support.tiny_models import make_model
from trimoe import _runtime
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.domains import CPU
from trimoe.errors import InputError
from trimoe.hf.stored_experts import stored_experts
from trimoe.policies import Workload
from trimoe.runtime import attach
from trimoe.runtime.machine_clock import MachineClock

pytestmark = pytest.mark.usefixtures("one_thread", "left_as_it_was")


# --- who comes, and who goes ------------------------------------------------------------------------


def test_an_end_is_an_end(model: Any, plain: torch.Tensor) -> None:
    attached = decided(model, "trimoe")
    passes(model, 1)
    attached.close()
    check_plain(model)
    attached.close()
    assert torch.equal(passes(model), plain)
    again = decided(model, "hermes")
    attached.close()
    assert _runtime.codes(stored_experts(model)[0].handle) != [CPU], "it is another's"
    assert torch.equal(passes(model), plain)
    again.close()


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, True])
def test_the_end_of_the_object_is_one_too(model: Any, used: bool) -> None:
    attached = decided(model, "hybrimoe", WHOLE)
    if used:
        passes(model, 1)
    gone = weakref.ref(attached), weakref.ref(attached.driver), weakref.ref(attached.policy)
    del attached
    gc.collect()
    check_plain(model)
    assert [one() for one in gone] == [None] * 3


def test_one_policy_is_attached_at_a_time(model: Any) -> None:
    attached = decided(model, "n-cpu-moe")
    with pytest.raises(InputError, match="a model that nobody decides for yet; got one with a policy"):
        decided(model, "trimoe")
    passes(model, 1)
    assert attached.driver.use.decisions == 2 * LAYERS, "the first goes on"
    attached.close()


BAD: dict[str, Any] = {
    r"popularity of 4 MoE layers and 32 experts; got shape \(3, 32\)": {"popularity": np.ones((3, 32))},
    "arithmetic host or core; got abacus": {"arithmetic": "abacus"},
    "requests of .*tiny within .* GB of (host|GPU) memory of": {"work": Workload(2**20, 1024, 1024)},
}


@pytest.mark.parametrize("line", BAD)
@pytest.mark.parametrize("machine", [WHOLE, DIMMS])
def test_bad_arguments_are_one_line(model: Any, line: str, machine: str) -> None:
    with pytest.raises(InputError, match=line):
        decided(model, "n-cpu-moe", machine, **BAD[line])
    check_plain(model)


@pytest.mark.parametrize("weights", ["fp32", "fp8"])
def test_a_format_that_no_dimm_computes_is_refused(weights: str) -> None:
    other = deciders.load(weights=weights)
    with pytest.raises(InputError, match=weights):
        attach(other, policy_of("trimoe"), deciders.WORK)
    check_plain(other)


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When domains, hooks and some layers are there already."""
    real, calls = _runtime.set_policy, []

    def third(handle: int, policy: Any) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(handle, policy)

    with monkeypatch.context() as patch:
        patch.setattr(_runtime, "set_policy", third)
        with pytest.raises(KeyboardInterrupt):
            decided(model, "hybrimoe")
    check_plain(model)


def test_models_of_another_kind_are_refused(model: Any) -> None:
    for other in (torch.nn.Linear(2, 2), make_model("qwen3_moe", torch.float32)):
        with pytest.raises(InputError, match=r"a model from trimoe\.load; got one without"):
            decided(other, "trimoe")
    int8 = deciders.load(weights="int8")
    with pytest.raises(InputError, match="4 MoE layers of 32 bf16 experts of 160 x 80; got 4 MoE layers"):
        decided(int8, "trimoe")
    qwen = CostModel(cost_of(WHOLE).profile, load_model_shape("qwen3-30b-a3b"), "bf16")
    with pytest.raises(InputError, match=r"48 MoE layers of 128 bf16 experts .* got 4 MoE layers of 32"):
        attach(model, type(policy_of("trimoe"))(qwen), deciders.WORK)


# --- what goes wrong on the way -----------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("so"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["plan", "background", "layer"])
@pytest.mark.parametrize("name", ["hybrimoe", "trimoe"])
def test_a_pass_that_was_cut_off_leaves_the_next_one_right(
    model: Any, plain: torch.Tensor, raised: BaseException, where: str, name: str
) -> None:
    """The next one works, another token of the same text included."""
    attached = decided(model, name)
    passes(model, 1)
    policy, armed = attached.policy, [2]  # layers until it happens

    def breaking(real: Any) -> Any:
        def call(*given: Any) -> Any:
            armed[0] -= 1
            if armed[0] == 0:
                raise raised
            return real(*given)

        return call

    hook = None
    if where == "layer":
        hook = stored_experts(model)[1].register_forward_pre_hook(breaking(lambda *_: None))
        armed[0] = 1
    else:
        setattr(policy, where, breaking(getattr(policy, where)))
    with torch.inference_mode(), pytest.raises(type(raised)) as caught:
        model(input_ids=deciders.prompt()[:, :1])
    assert caught.value is raised
    if hook is not None:
        hook.remove()
    with torch.inference_mode():
        for _ in range(3):
            model(input_ids=deciders.prompt()[:, :1])
    assert torch.equal(passes(model), plain)
    attached.close()


def test_an_answer_that_was_cut_off_leaves_no_move_unfinished(
    model: Any, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move is promised, and nobody brings the expert: the phase begins anew."""
    attached = decided(model, "trimoe")
    real, cut = MachineClock.begin, list[Any]()

    def begin(self: Any, ticket: Any) -> None:
        if attached.driver.engines[-1].phase == "decode" and not cut:
            cut.append(ticket)
            raise KeyboardInterrupt
        real(self, ticket)

    monkeypatch.setattr(MachineClock, "begin", begin)
    draw = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        model(input_ids=deciders.prompt())
        for _ in range(20):
            with contextlib.suppress(KeyboardInterrupt):
                model(input_ids=torch.randint(1, 2048, (1, 1), generator=draw))
    assert cut, "or this tests nothing"
    engine = attached.driver.engines[-1]
    assert engine.phase == "decode"
    for residency in engine.residencies:
        for expert in list(residency.pending):
            assert residency.ticket(expert) in engine.model._tickets, "somebody brings it"
    assert torch.equal(passes(model), plain)
    attached.close()


def test_calls_out_of_order_are_one_line(model: Any, plain: torch.Tensor) -> None:
    attached = decided(model, "trimoe")
    modules = stored_experts(model)
    given = torch.ones(1, 160, dtype=torch.bfloat16), torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4)
    line = "the MoE layers of one forward pass after the other, in their order; got the one with index"
    with torch.inference_mode():
        for index in (2, 1, 3):
            with pytest.raises(InputError, match=f"{line} {index}"):
                modules[index](*given)
        modules[0](*given)
        for index in (2, 3):
            with pytest.raises(InputError, match=f"{line} {index}"):
                modules[index](*given)
        modules[1](*given)
        with pytest.raises(InputError, match=f"{line} 1"):
            modules[1](*given)
    assert torch.equal(passes(model), plain)
    attached.close()


def test_two_threads_get_right_results_or_one_line(model: Any, plain: torch.Tensor) -> None:
    attached = decided(model, "trimoe")
    good, bad = list[torch.Tensor](), list[str]()

    def run() -> None:
        for _ in range(4):
            try:
                good.append(passes(model, 1))
            except InputError as error:
                bad.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert not any(one.is_alive() for one in threads) and len(good) + len(bad) == 8
    assert all("the MoE layers of one forward pass after the other" in one for one in bad)
    assert all(torch.equal(one, plain[:2]) for one in good)
    assert torch.equal(passes(model), plain)
    attached.close()


def test_a_copy_shares_the_policy_and_then_has_none(model: Any, plain: torch.Tensor) -> None:
    attached = decided(model, "hermes")
    twin = copy.deepcopy(model)
    assert all(module.runner is None for module in stored_experts(twin))
    for one in (twin, model, twin):
        attached.driver.reset()
        assert torch.equal(passes(one), plain)
        attached.driver.finish()
        assert attached.driver.use.decisions == (1 + deciders.STEPS) * LAYERS
        assert sum(use.tokens for use in attached.telemetry.uses.values()) == PREFILL + DECODE
    attached.close()
    assert torch.equal(passes(twin), plain)


@pytest.mark.slow
@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_code_asks_the_policy(model: Any, fullgraph: bool) -> None:
    """No part of who decides becomes part of a graph."""
    torch._dynamo.reset()
    experts = stored_experts(model)

    def two(hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return experts[1](experts[0](hidden, ids, weights), ids, weights)

    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 160, generator=draw).bfloat16()
    ids, weights = torch.randint(0, 32, (3, 4), generator=draw), torch.rand(3, 4, generator=draw)
    with torch.no_grad():
        wanted = two(hidden, ids, weights)
        attached = decided(model, "trimoe")
        graphs: list[Any] = []

        def backend(graph: Any, _: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(two, fullgraph=fullgraph, backend=backend)
        for _ in range(3):
            assert torch.equal(compiled(hidden, ids, weights), wanted)
        attached.driver.finish()
        assert attached.driver.use.decisions == 6
        assert len(graphs) == 1 and sum(one.op == "call_function" for one in graphs[0].graph.nodes) >= 2
        test = torch.library.opcheck(
            torch.ops.trimoe.moe_forward.default, (hidden, ids, weights, experts[0].handle)
        )
        assert set(test.values()) == {"SUCCESS"}
        attached.close()
        assert torch.equal(compiled(hidden, ids, weights), wanted)
    torch._dynamo.reset()
