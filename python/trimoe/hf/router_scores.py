"""A router's probabilities of all experts, from its logits: softmax or sigmoid, as the model does.

A router of transformers returns logits [T, C], and weights and ids of the chosen experts [T, K]. Whatever the
weights were normalised or scaled by, a token's are in the ratio of the probabilities of the experts it chose:
which function makes probabilities of logits shows in what comes out of the router.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["RouterScores", "router_logits"]

_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "softmax, by the router": lambda logits: logits,  # in place of logits
}
_GIVEN = "softmax, by the router"
_TOLERANCE = 2**-6  # of a share of a token's weights: a few roundings to bf16
_EXACT = 1e-5  # no difference between two functions


def router_logits(output: Any) -> torch.Tensor | None:
    """Logits [T, C] of what a router returned; None where it does not return them first, before two more."""
    if not isinstance(output, tuple) or len(output) < 3 or not torch.is_tensor(output[0]):
        return None
    return output[0].detach().reshape(-1, output[0].shape[-1])


class RouterScores:
    """Probabilities of one model's routers.

    Args:
        experts: E; a router with more classes has experts that compute nothing behind them.
    """

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self._worst = dict.fromkeys(_FUNCTIONS, 0.0)

    @property
    def function(self) -> str | None:
        """The one function that fits all that was seen; None where none does, or another fits as well."""
        best, second = sorted(self._worst, key=self._worst.__getitem__)[:2]
        fits = self._worst[best] <= _TOLERANCE and self._worst[second] > 2 * self._worst[best] + _EXACT
        return best if fits else None

    def see(self, logits: torch.Tensor | None, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """What a router returned, logits [T, C], and what the experts were given for it, [T, K] each."""
        if logits is None or len(logits) != len(ids) or logits.shape[1] < self.experts:
            self._worst = dict.fromkeys(_FUNCTIONS, float("inf"))
            return
        for name, function in _FUNCTIONS.items():
            found = function(logits.float())
            error = _no_shares(found) if name == _GIVEN else _mismatch(found, ids, weights.float())
            worst = float(error.nan_to_num(nan=float("inf")).max()) if len(error) else 0.0
            self._worst[name] = max(self._worst[name], worst)

    def of(self, logits: torch.Tensor) -> torch.Tensor | None:
        """[T, E] float32, 0 to 1; None where no function fits."""
        name = self.function
        return None if name is None else _FUNCTIONS[name](logits.float())[:, : self.experts]


def _no_shares(found: torch.Tensor) -> torch.Tensor:
    """[T], how far rows are from values of 0 to 1 that add up to 1."""
    inside = found.clamp(0, 1)
    return (inside.sum(-1) - 1).abs() + (found - inside).abs().sum(-1)


def _mismatch(found: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """[T], how far the shares of a token's weights are from those of its experts' probabilities."""
    there = (ids >= 0) & (ids < found.shape[1]) & (weights != 0)
    chosen = found.gather(1, ids.clamp(0, found.shape[1] - 1).long()).masked_fill(~there, 0.0)
    if ids.shape[1] > 1:  # a single weight as it is: a share of it would always be 1
        chosen, weights = (one / one.sum(-1, keepdim=True).clamp_min(1e-30) for one in (chosen, weights))
    return (chosen - weights).abs().amax(-1)
