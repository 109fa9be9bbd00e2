"""The layer in plain fp32: what errors are measured against."""

from __future__ import annotations

import pytest
import torch

from trimoe.measure.reference import exact_forward, rel_error


def test_each_token_gets_the_weighted_sum_of_its_experts() -> None:
    experts = [tuple(torch.randn(shape) for shape in ((6, 4), (6, 4), (4, 6))) for _ in range(3)]
    hidden, ids, weights = (
        torch.randn(5, 4),
        torch.tensor([[0, 2], [1, 0], [2, 1], [1, 2], [0, 1]]),
        torch.rand(5, 2),
    )
    result = exact_forward(hidden, ids, weights, lambda index: experts[index])
    for token in range(5):
        wanted = torch.zeros(4)
        for slot in range(2):
            gate, up, down = experts[int(ids[token, slot])]
            pre = gate @ hidden[token]
            wanted += weights[token, slot] * (down @ (pre * torch.sigmoid(pre) * (up @ hidden[token])))
        torch.testing.assert_close(result[token], wanted)


def test_the_error_is_relative_to_what_is_exact() -> None:
    exact = torch.tensor([3.0, 4.0])
    assert rel_error(exact, exact) == 0
    assert rel_error(exact + torch.tensor([0.0, 0.5]), exact) == pytest.approx(0.1)
