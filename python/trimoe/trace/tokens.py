"""A recorded trace token by token: a workload's requests are those of the trace, with their preferences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Ints
from trimoe.errors import InputError
from trimoe.trace.routing import Trace

__all__ = ["Tokens", "replayed"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of one step of a workload.

    trace: they are of. rows: [T], which of the trace's tokens each is. requests: [T], of the workload.
    """

    trace: Trace
    rows: Ints
    requests: Ints

    def counts(self) -> Ints:
        """[MoE layers, E], tokens of each expert."""
        experts = self.trace.meta.experts
        chosen = (self.ids(layer) for layer in range(len(self.trace.meta.layers)))
        return np.stack([np.bincount(one[one >= 0], minlength=experts) for one in chosen])

    def ids(self, layer: int) -> Ints:
        """[T, K], the experts that they choose in a MoE layer, counted from 0."""
        found: Ints = self.trace.ids[layer][self.rows].astype(np.int64)
        return found

    def scores(self, layer: int) -> npt.NDArray[np.float32] | None:
        """[T, E], the router's probabilities; None where the trace has none."""
        return None if self.trace.scores is None else self.trace.scores[layer][self.rows]

    def of(self, n_requests: int) -> Tokens:
        """Those of the first so many requests."""
        keep = self.requests < n_requests
        return Tokens(self.trace, self.rows[keep], self.requests[keep])


def replayed(
    trace: Trace, requests: Ints, batch: int, prompt_tokens: int, rng: np.random.Generator
) -> tuple[Tokens, list[Tokens]]:
    """The prompts' step and the decode steps of `batch` requests.

    Each of them is one of the trace's `requests`, all of which are taken once before any is taken again. A
    prompt is that of the trace, from the start again where it is too short; a request that has ended goes on
    as one that still runs.

    Raises:
        InputError: a request has no prompt.
    """
    first = max(1, trace.meta.prefill_steps)
    prompts = {
        one: np.flatnonzero((trace.request == one) & (trace.step < first)) for one in requests.tolist()
    }
    if not all(map(len, prompts.values())):
        raise InputError(
            expected="a trace in which every request begins with a prompt",
            got="some that come later",
            hint="`trimoe trace record`",
        )
    takes = np.resize(rng.permutation(requests), batch).tolist()
    whose = np.repeat(np.arange(batch), prompt_tokens)
    prompt = Tokens(trace, np.concatenate([np.resize(prompts[one], prompt_tokens) for one in takes]), whose)
    ours = np.isin(trace.request, requests)
    decode = []
    for step in np.unique(trace.step[ours & (trace.step >= trace.meta.prefill_steps)]).tolist():
        there = np.flatnonzero(ours & (trace.step == step))
        row_of = dict(zip(trace.request[there].tolist(), there.tolist(), strict=True))
        rows = [row_of.get(one, int(there[index % len(there)])) for index, one in enumerate(takes)]
        decode.append(Tokens(trace, np.array(rows), np.arange(batch)))
    return prompt, decode
