"""The shipped model under every system: the same bits, other work, and for long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.cases import rel_error
from support.deciders import DECODE, DIMMS, LAYERS, PREFILL, TIGHT, TOPK, WHOLE, decided, passes, policy_of
from support.every_policy import NEEDS_NO_GPU
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT
from trimoe.generate.generation import Sampling, generate
from trimoe.hf.stored_experts import StoredExperts, stored_experts
from trimoe.policies import Workload, policy_names
from trimoe.runtime import Attached, attach, driver

Machines = list[tuple[str, str]]
EVERYWHERE: Machines = [
    *((name, machine) for name in policy_names() for machine in (WHOLE, TIGHT)),
    *((name, DIMMS) for name in sorted(NEEDS_NO_GPU)),
]
pytestmark = pytest.mark.usefixtures("one_thread", "left_as_it_was")


# --- the same results, elsewhere --------------------------------------------------------------------


@pytest.mark.slow
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
def test_several_requests_run_at_once(model: Any, rows: int) -> None:
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


def test_generations_follow_one_another(model: Any) -> None:
    from trimoe.hf.tokenizer import load_tokenizer

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
