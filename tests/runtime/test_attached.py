"""The shipped model under every system: the same bits, other work; and what comes and goes with a policy."""

from __future__ import annotations

import contextlib
import copy
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.cases import rel_error
from support.deciders import DIMMS, LAYERS, TIGHT, TOPK, WHOLE, cost_of, decided, passes, policy_of
from support.every_policy import NEEDS_NO_GPU
from support.tiny_models import make_model
from trimoe import _runtime
from trimoe.cost import CostModel, load_model_shape
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT
from trimoe.errors import InputError
from trimoe.models.stored_experts import StoredExperts, stored_experts
from trimoe.policies import Workload, policy_names
from trimoe.runtime import Attached, attach, driver
from trimoe.runtime.generation import Sampling, generate
from trimoe.runtime.machine_clock import MachineClock

Machines = list[tuple[str, str]]
EVERYWHERE: Machines = [
    *((name, machine) for name in policy_names() for machine in (WHOLE, TIGHT)),
    *((name, DIMMS) for name in sorted(NEEDS_NO_GPU)),
]
PREFILL, DECODE = deciders.PROMPT * LAYERS * TOPK, deciders.STEPS * LAYERS * TOPK


@pytest.fixture(scope="module")
def model() -> Any:
    return deciders.load()


@pytest.fixture(scope="module")
def plain(model: Any) -> torch.Tensor:
    """What it says with nobody deciding."""
    return passes(model)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a machine that others use too, threads that wait for each other take long for so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def left_as_it_was(model: Any) -> Iterator[None]:
    yield
    if any(module.runner for module in stored_experts(model)):
        gc.collect()  # of a test that failed
    check_plain(model)


def check_plain(model: Any) -> None:
    """Nothing decides for a model, and nothing listens to it."""
    for module in stored_experts(model):
        assert module.runner is None and _runtime.codes(module.handle) == [CPU]
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())


# --- the same results, elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "machine"), EVERYWHERE)
def test_every_system_computes_the_same_bits(
    model: Any, plain: torch.Tensor, name: str, machine: str
) -> None:
    attached = decided(model, name, machine)
    for _ in range(2):  # a prompt again: everything begins anew
        attached.driver.reset()
        assert torch.equal(passes(model), plain)
        attached.driver.finish()
        uses, use = attached.telemetry.uses, attached.driver.use
        assert sum(one.tokens for one in uses.values()) == PREFILL + DECODE
        assert use.decisions == (1 + deciders.STEPS) * LAYERS and use.reruns == 0
        assert uses[CPU].computed_tokens == PREFILL + DECODE, "the host computes for all"
        for code, one in uses.items():
            kind = "measured" if code == CPU else "modelled" if code == GPU else "emulated"
            assert one.kind == kind and (one.predicted_ns > 0) == (one.tokens > 0), one
            assert (one.took_ns > 0) or not one.tokens, one
            assert one.took_ns == one.predicted_ns or kind != "modelled"
        if machine == DIMMS:
            assert GPU not in uses
    attached.close()
    assert torch.equal(passes(model, 1), plain[:2])


@pytest.mark.parametrize("name", ["monde", "hermes", "edge-ndp", "trimoe"])
def test_the_emulated_core_computes_nearly_the_same(model: Any, plain: torch.Tensor, name: str) -> None:
    attached = decided(model, name, DIMMS, arithmetic="core")
    assert rel_error(passes(model, 0)[0], plain[0].double()) <= 0.02
    attached.driver.finish()
    uses = attached.telemetry.uses
    on_dimms = sum(one.tokens for code, one in uses.items() if code not in (CPU, GPU))
    assert uses[CPU].computed_tokens == PREFILL - on_dimms
    attached.close()


def test_systems_differ_in_where_the_work_goes(model: Any) -> None:
    found = {}
    for name in ("trimoe", "hybrimoe", "monde", "n-cpu-moe", "flexgen"):
        attached = decided(model, name)
        passes(model)
        attached.driver.finish()
        found[name] = {code: use.tokens for code, use in attached.telemetry.uses.items() if use.tokens}
        attached.close()
    assert len({tuple(sorted(one.items())) for one in found.values()}) == len(found)
    assert set(found["flexgen"]) == {GPU} and set(found["n-cpu-moe"]) == {CPU, GPU}
    assert len({code for code in found["monde"] if code >= FIRST_DIMM}) > 8
    assert {CPU, GPU} < set(found["trimoe"]) and max(found["trimoe"]) >= FIRST_DIMM


def test_one_count_moves_the_work(model: Any) -> None:
    """Hot experts go to the GPU, and one token less sends one of them elsewhere."""
    attached = decided(model, "trimoe", DIMMS)
    module = stored_experts(model)[0]
    hidden, weights = torch.ones(64, 160, dtype=torch.bfloat16), torch.ones(64, 1)

    def where(hot: int) -> dict[int, int]:
        ids = torch.where(torch.arange(64) < hot, 0, 1 + torch.arange(64) % 31)[:, None]
        attached.driver.reset()
        module(hidden, ids, weights)
        attached.driver.finish()
        return {code: use.tokens for code, use in attached.telemetry.uses.items()}

    splits = [where(hot) for hot in range(0, 65, 4)]
    assert all(sum(one.values()) == 64 for one in splits)
    on_cpu = [one[CPU] for one in splits]
    assert on_cpu[0] < on_cpu[-1] == 64, "an expert with all tokens is the CPU's, one with two is not"
    attached.close()


@pytest.mark.parametrize("rows", [1, 3])
def test_several_requests_at_once(model: Any, rows: int) -> None:
    alone = passes(model, rows=rows)
    attached = decided(model, "moe-infinity", work=Workload(rows, 9, 6))
    seen: list[Any] = []
    plan = attached.policy.plan
    attached.policy.plan = lambda step: (seen.append(step), plan(step))[1]  # type: ignore[method-assign]
    assert torch.equal(passes(model, rows=rows), alone)
    assert [one.phase for one in seen] == ["prefill"] * LAYERS + ["decode"] * LAYERS * deciders.STEPS
    assert [one.step for one in seen[LAYERS:]] == np.repeat(np.arange(deciders.STEPS), LAYERS).tolist()
    assert seen[0].requests.tolist() == np.repeat(np.arange(rows), 9).tolist()
    assert seen[-1].requests.tolist() == list(range(rows)) and seen[-1].chosen.shape == (rows, TOPK)
    for one in seen:
        assert np.bincount(one.chosen.ravel(), minlength=32).tolist() == one.counts.tolist()
    attached.close()


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


def test_one_at_a_time(model: Any) -> None:
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
def test_bad_arguments(model: Any, line: str, machine: str) -> None:
    with pytest.raises(InputError, match=line):
        decided(model, "n-cpu-moe", machine, **BAD[line])
    check_plain(model)


@pytest.mark.parametrize("weights", ["fp32", "fp8"])
def test_a_format_that_no_dimm_computes(weights: str) -> None:
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


def test_models_of_another_kind(model: Any) -> None:
    for other, got in (
        (torch.nn.Linear(2, 2), "no stored experts"),
        (make_model("qwen3_moe", torch.float32), "no stored experts"),
        (deciders.load(weights="int8"), "4 MoE layers of 32 int8 experts of 160 x 80"),
    ):
        with pytest.raises(InputError, match=f"4 MoE layers of 32 bf16 experts of 160 x 80; got {got}"):
            decided(other, "trimoe")
    qwen = CostModel(cost_of(WHOLE).profile, load_model_shape("qwen3-30b-a3b"), "bf16")
    with pytest.raises(InputError, match=r"48 MoE layers of 128 bf16 experts .* got 4 MoE layers of 32"):
        attach(model, type(policy_of("trimoe"))(qwen), deciders.WORK)


# --- what goes wrong on the way -----------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("so"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["plan", "background", "layer"])
@pytest.mark.parametrize("name", ["hybrimoe", "trimoe"])
def test_a_pass_that_was_cut_off(
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


def test_an_answer_that_was_cut_off_while_it_was_carried_out(
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


# --- for long --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trimoe", "hermes", "hybrimoe"])
def test_a_long_text_takes_no_more_memory(
    model: Any, plain: torch.Tensor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_STEPS", 4)
    attached = decided(model, name)
    seen: list[tuple[str, int, int]] = []
    plan = attached.policy.plan

    def noted(step: Any) -> Any:
        seen.append((step.phase, step.step, step.layer))
        return plan(step)

    attached.policy.plan = noted  # type: ignore[method-assign]
    longest = 0
    ids = deciders.prompt()
    with torch.inference_mode():
        model(input_ids=ids)
        for _ in range(30):
            model(input_ids=ids[:, :1])
            assert len(attached.driver.engines) == 1
            clock = attached.driver.engines[0].model
            longest = max(longest, len(clock.records))
            assert len(clock.step_ends) <= 4
    assert longest <= 5 * LAYERS
    assert seen[LAYERS:] == [("decode", step, layer) for step in range(30) for layer in range(LAYERS)]
    assert not attached.telemetry.history and len(attached.driver.use.plan_ns) == 31 * LAYERS
    assert attached.driver.use.plan_ns.maxlen
    assert torch.equal(passes(model), plain)
    attached.close()


def test_generations_one_after_the_other(model: Any) -> None:
    from trimoe.models.tokenizer import load_tokenizer

    tokenizer, sampling = load_tokenizer(deciders.SHIPPED), Sampling(6, 0.0)
    prompts = ("In the beginning", "And God said", "In the beginning")
    alone = [generate(model, tokenizer, one, sampling).text for one in prompts]
    attached = decided(model, "moe-infinity", keep=True)
    for one, text in zip(prompts, alone, strict=True):
        found = generate(model, tokenizer, one, sampling, attached=attached)
        assert found.text == text
        for phase in (found.prefill, found.decode):
            assert sum(use.tokens for use in phase.uses) == phase.tokens * LAYERS * TOPK
            assert phase.policy is not None
            assert phase.policy.decisions == LAYERS * (1 if phase is found.prefill else phase.tokens)
    assert [one.phase for one in attached.driver.engines] == ["prefill", "decode"] * 3
    attached.close()


def test_deferral_is_off_and_said_to_be(model: Any, plain: torch.Tensor) -> None:
    policy = policy_of("ktransformers", WHOLE, deferral=1, gpu_experts=0)
    attached = attach(model, policy, deciders.WORK)
    assert torch.equal(passes(model), plain)
    attached.driver.finish()
    assert attached.driver.use.as_dict()["off"] == ["deferral"]
    attached.driver.reset()
    assert attached.driver.use.as_dict()["off"] == []
    attached.close()


def test_split_experts_are_the_work_of_all_dimms(model: Any) -> None:
    attached: Attached = decided(model, "edge-ndp", DIMMS)
    passes(model, 0)
    attached.driver.finish()
    use = attached.telemetry.uses[SPLIT]
    assert (use.name, use.kind) == ("all DIMMs", "emulated") and 0 < use.tokens <= PREFILL
    assert set(attached.telemetry.uses) == {SPLIT, CPU}, "no DIMM has one alone"
    attached.close()


def test_stored_experts_come_in_the_order_of_layers(model: Any) -> None:
    found = stored_experts(model)
    assert [one.layer for one in found] == [layer for _, layer in sorted(model.trimoe_store.layers.items())]
    assert all(isinstance(one, StoredExperts) for one in found)
    assert stored_experts(torch.nn.Linear(1, 1)) == []
