"""Popularity: how often each expert is chosen, as the formula says it and as plain draws do."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.trace.popularity import cold_share, inclusion, logit_correlation, spread


def test_popularity_is_what_the_formula_says() -> None:
    """p = 1 - exp(-exp(z - tau)), against a million draws of the plain definition."""
    z = np.linspace(-2, 3, 40)
    gumbel = np.random.default_rng(0).gumbel(size=(25_000, 40))
    chosen = np.argpartition(-(z + gumbel), 3, axis=-1)[:, :4]
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=40) / 25_000, inclusion(z, 4), atol=0.02)
    assert inclusion(z, 4).sum() == pytest.approx(4)


@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
def test_the_correlation_of_logits_follows_from_that_of_popularity(shape: str) -> None:
    rng, rho = np.random.default_rng(0), 0.7
    u = rng.standard_normal((2, 400, 256))
    u[1] = rho * u[0] + (1 - rho**2) ** 0.5 * u[1]
    rank = np.argsort(np.argsort(-u, axis=-1), axis=-1) + 1.0
    z = 1.2 * u if shape == "lognormal" else -1.2 * np.log(rank)
    p = inclusion(z, 8)
    seen = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*p, strict=True)]))
    assert logit_correlation(seen, shape, 1.2, 256, 8) == pytest.approx(rho, abs=0.03)


def test_the_skew_solved_for_is_monotone() -> None:
    for shape in ("lognormal", "zipf"):
        spreads = [spread(shape, skew, 64, 4) for skew in (0, 0.5, 1, 2, 4)]
        colds = [cold_share(shape, skew, 64, 4, 0.7) for skew in (0, 0.5, 1, 2, 4)]
        assert spreads == sorted(spreads) and colds == sorted(colds, reverse=True)
        assert spreads[0] == pytest.approx(0, abs=1e-9) and colds[0] == pytest.approx(45 / 64)
