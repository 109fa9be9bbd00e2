"""Token counts by expert, without single tokens: all that most policies see, much faster than a trace.

The popularity is the generator's (docs/traces.md); counts are binomial around it, and add up as they must.
"""

from __future__ import annotations

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.trace.generator import GeneratorSpec, popularity_scale
from trimoe.trace.popularity import inclusion

__all__ = ["draw_counts", "generate_counts"]


def generate_counts(spec: GeneratorSpec) -> tuple[Ints, Floats]:
    """Counts [S, L, E] int64 of the spec's steps, each of spec.batch tokens, and their probabilities p.

    The same for the same spec. Counts of a layer add up to batch * topk, none is above batch; what a token
    chooses together, and links between layers (`correlation`), are lost.
    """
    scale = popularity_scale(spec).astype(np.float64)  # exp(-z) up to a factor, [L, S, E]
    p = np.moveaxis(inclusion(-np.log(scale), spec.topk), 1, 0)
    rng = np.random.default_rng([spec.seed, 3])
    return draw_counts(p, spec.batch, spec.topk, rng), p


def draw_counts(p: Floats, tokens: int, topk: int, rng: np.random.Generator) -> Ints:
    """Counts [..., E] of tokens that each take topk experts with the probabilities p, which sum to topk."""
    p = np.clip(p, 0.0, 1.0)
    counts = rng.binomial(tokens, p).astype(np.int64)
    wanted = tokens * topk
    while True:
        excess = counts.sum(-1) - wanted
        rows = np.nonzero(excess)
        if not len(rows[0]):
            return counts
        # Choices too many or too few: taken from, or given to, experts as far as they can spare. The weights
        # are about tokens * p * (1 - p) both ways, how much a count varies, so that its mean stays.
        some, over = counts[rows], excess[rows]
        room = np.where(over[:, None] > 0, some, tokens - some)
        weight = room * (np.where(over[:, None] > 0, 1 - p[rows], p[rows]) + 1e-12)
        weight = weight / weight.sum(-1, keepdims=True)
        change = np.minimum(rng.multinomial(np.abs(over), weight), room)
        counts[rows] = some - np.sign(over)[:, None] * change
