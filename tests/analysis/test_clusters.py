"""k-means on points whose clusters are known, and the embedding that needs no model."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.analysis.clusters import _nearest, embed_texts, k_means
from trimoe.errors import InputError


def _blobs(seed: int, sizes: tuple[int, ...] = (30, 10, 20, 5)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return 20 * np.eye(len(sizes))[truth] + rng.normal(0, 0.5, (len(truth), len(sizes))), truth


@pytest.mark.parametrize("seed", range(5))
def test_clusters_that_lie_apart_are_found(seed: int) -> None:
    points, truth = _blobs(seed)
    labels, centres = k_means(points, 4, seed=seed)
    assert all(len(set(labels[truth == one])) == 1 for one in range(4)) and len(set(labels)) == 4
    for label, centre in enumerate(centres):
        assert centre == pytest.approx(points[labels == label].mean(0))


def test_a_result_is_a_fixed_point_and_the_same_again() -> None:
    points = np.random.default_rng(0).normal(size=(200, 6))
    labels, centres = k_means(points, 16, seed=3)
    nearest = ((points[:, None] - centres[None]) ** 2).sum(2).argmin(1)
    assert (labels == nearest).all() and set(labels) == set(range(16))
    again, _ = k_means(points, 16, seed=3)
    assert (labels == again).all()

    def spread(k: int) -> float:
        found, middle = k_means(points, k)
        return float(((points - middle[found]) ** 2).sum())

    assert spread(1) == pytest.approx(((points - points.mean(0)) ** 2).sum())
    assert spread(200) == 0 < spread(50) < spread(5) < spread(1)


def test_there_are_no_more_clusters_than_points_that_differ() -> None:
    labels, centres = k_means(np.repeat([[0.0, 1.0], [5.0, 2.0]], 4, axis=0), 6)
    assert len(centres) == 2 and set(labels) == {0, 1}  # no more clusters than points that differ


def test_no_cluster_runs_empty() -> None:
    points = np.array([[0.0], [1.0], [5.0], [20.0]])
    centres = np.array([[0.0], [0.0], [30.0]])
    # The second has none, and takes the furthest that is not alone.
    assert _nearest(points, centres).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("points", "k"),
    [(np.zeros((3, 2)), 0), (np.zeros((3, 2)), 4), (np.zeros(3), 1), (np.full((3, 2), np.nan), 1)],
)
def test_bad_input_is_one_line(points: np.ndarray, k: int) -> None:
    with pytest.raises(InputError, match="finite embeddings"):
        k_means(points, k)


def test_texts_that_are_alike_lie_closer() -> None:
    texts = ["def add(a, b): return a + b", "def sub(a, b): return a - b", "And the king said unto them", ""]
    found = embed_texts(texts)
    assert found.shape == (4, 256) and np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    alike = found @ found.T
    assert alike[0, 1] > 0.5 > alike[0, 2] and alike[0, 2] < alike[0, 1]
    assert (embed_texts(texts[:1]) == found[:1]).all()
