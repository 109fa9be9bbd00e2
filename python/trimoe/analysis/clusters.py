"""k-means, and an embedding of texts that needs no model. Both are small enough not to be worth scikit-learn,
which brings scipy and weighs more than everything else that trimoe installs beside torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.errors import InputError

__all__ = ["embed_texts", "k_means"]

_GRAM = 3  # bytes: long enough to tell languages and topics apart, short enough for a single line


def embed_texts(texts: Sequence[str], size: int = 256) -> Floats:
    """[R, size]: how often each text has the byte trigrams of each hash value; square roots, length 1.

    A stand-in for the mean token embedding, where no model is at hand.
    """
    result = np.zeros((len(texts), size))
    for row, text in zip(result, texts, strict=True):
        # Spaces stand at both ends, so that the shortest text has a trigram and words have edges.
        data = f"  {text} ".encode()
        for start in range(len(data) - _GRAM + 1):
            row[zlib.crc32(data[start : start + _GRAM]) % size] += 1
    result = np.sqrt(result)
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    return result


def k_means(points: Floats, k: int, *, seed: int = 0, rounds: int = 100) -> tuple[Ints, Floats]:
    """Clusters of points [R, d]: labels [R], of 0 to k - 1 with at least one point each, and centres [k, d].

    Lloyd's algorithm from the start of k-means++ (Arthur and Vassilvitskii, SODA 2007); a cluster that runs
    empty takes the point furthest from its centre. Fewer than k clusters where fewer points differ.

    Raises:
        InputError: points are no finite matrix, or k is not in 1 to R.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not np.isfinite(points).all() or not 1 <= k <= len(points):
        raise InputError(
            expected="finite embeddings [requests, d], and 1 to so many clusters as there are requests",
            got=f"{k} clusters of {' x '.join(map(str, points.shape)) or 'one number'}",
            hint="--clusters 4",
        )
    centres = _first_centres(points, k, np.random.default_rng(seed))
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        found = _nearest(points, centres)
        if (found == labels).all():
            break
        labels = found
        centres = np.stack([points[labels == one].mean(0) for one in range(len(centres))])
    return labels, centres


def _first_centres(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Each next one is a point by chance, in proportion to its squared distance from those before."""
    centres = [points[rng.integers(len(points))]]
    away = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < k and away.sum() > 0:
        centres.append(points[rng.choice(len(points), p=away / away.sum())])
        away = np.minimum(away, ((points - centres[-1]) ** 2).sum(1))
    return np.stack(centres)


def _nearest(points: Floats, centres: Floats) -> Ints:
    """[R] labels; every centre has one point at least."""
    distances = ((points[:, None] - centres[None]) ** 2).sum(2)
    labels: Ints = distances.argmin(1)
    for empty in np.setdiff1d(np.arange(len(centres)), labels):
        own = distances[np.arange(len(points)), labels]
        crowded = np.bincount(labels, minlength=len(centres))[labels] > 1
        labels[np.where(crowded, own, -1.0).argmax()] = empty
    return labels
