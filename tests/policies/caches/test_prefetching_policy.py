"""Prefetching goes on while copies save more than they cost."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import ask, carry_out, policy_of, states_of, step_of


def few(rng: np.random.Generator, experts: range) -> np.ndarray:
    counts = np.zeros(64, np.int64)
    counts[rng.choice(experts, 6, replace=False)] = 40
    return counts


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("truthful", [True, False])
def test_wrong_predictions_switch_prefetching_off(truthful: bool, enabled: bool) -> None:
    """HybriMoE with a foresight that is right, or one that names experts that nobody ever chooses."""
    policy = policy_of(
        "hybrimoe", "a6000-5220r10", "deepseek-v2-lite", ratio=0.25, window=2, probe=3, auto_off=enabled
    )
    states = states_of(policy)
    rng = np.random.default_rng(2)
    prefetched = np.zeros(10, int)
    for step in range(10):
        real = [few(rng, range(48)) for _ in states]
        told = real if truthful else [few(rng, range(48, 64)) for _ in states]
        for layer, counts in enumerate(real):
            state = states[layer]
            carry_out(state, *ask(policy, layer, counts, states).keep)
            known = dict(list(enumerate(told))[layer + 1 : layer + 4])
            idle_ns = 1.1 * policy.fetch_ns
            now = step_of(states, layer, counts, step=step, idle_ns=idle_ns, foreseen=known)
            for move in policy.background(now):
                carry_out(states[move.layer], move)
                prefetched[step] += 1
    on = [True] * 10 if truthful or not enabled else [step % 5 < 2 for step in range(10)]
    assert (prefetched > 0).tolist() == on
