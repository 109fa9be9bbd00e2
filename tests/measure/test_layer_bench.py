"""The routing that a layer is measured under."""

from __future__ import annotations

import torch

from trimoe.measure.layer_bench import route


def test_routing_is_distinct_normalised_and_as_skewed_as_named() -> None:
    for kind, at_least, at_most in (("uniform", 0.0, 1.3), ("zipf", 3.0, 100.0)):
        ids, weights = route(4000, 32, 4, kind, seed=1)
        assert all(len(set(row)) == 4 for row in ids[:200].tolist())
        torch.testing.assert_close(weights.sum(1), torch.ones(4000))
        counts = torch.bincount(ids.flatten(), minlength=32).float()
        assert at_least <= float(counts.max() / counts.mean()) <= at_most
        assert torch.equal(ids, route(4000, 32, 4, kind, seed=1)[0])
