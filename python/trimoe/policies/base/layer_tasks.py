"""The tasks of one layer of a deployment: attention in micro-batches, then the experts.

Planners put them on a schedule to compare deployments, the simulator on its clock: one description for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trimoe.arrays import Floats
from trimoe.cost import NOTHING, CostModel, Task
from trimoe.cost.layer_ops import ELEMENT_BYTES, LayerOps, Op, head_op, hidden_bytes, layer_ops
from trimoe.domains import CPU, GPU
from trimoe.policies.base.deployment import Deployment
from trimoe.policies.base.occupancy import PlanLoad

__all__ = ["LayerTasks"]

# More micro-batches than this overlap as well as this many, each of several.
_MOST_GROUPS = 8
_DOMAIN = {"cpu": CPU, "gpu": GPU}
_NONE: tuple[int, ...] = ()


class _Stage(NamedTuple):
    """What one micro-batch occupies; known: before the layer begins; a copy's direction and bytes."""

    name: str
    load: Floats
    known: bool = False
    direction: str = ""
    n_bytes: float = 0.0


class LayerTasks:
    """Layers of one deployment.

    Args:
        cost: of the model on the machine.
        deployment: what is fixed.
        new_tokens: of each request: 1 at decode, the prompt's at prefill.

    Tasks are numbered from `first` on, and the last one of each list is the moment when all of them ended.
    All micro-batches are of the mean size.
    """

    def __init__(self, cost: CostModel, deployment: Deployment, new_tokens: int) -> None:
        self.cost, self.deployment, self.new_tokens = cost, deployment, new_tokens
        self._layers: dict[tuple[int, bool], tuple[tuple[_Stage, ...], tuple[_Stage, ...]]] = {}

    def copies(self, context: int, *, moe: bool, after: tuple[int, ...] = _NONE) -> list[Task]:
        """What the layer's attention needs on the GPU and can be copied before it begins, weights first.

        To be handed to `attention` as `copied`; without, `attention` has these tasks among its own.
        """
        weights, stages = self._layer(context, moe)
        groups, times = self._groups()
        known = [one for one in stages if one.known]
        tasks = [Task(one.name, one.load, after) for one in weights]
        return tasks + [Task(one.name, one.load * times, after) for one in known * groups]

    def attention(
        self,
        context: int,
        *,
        moe: bool,
        first: int,
        after: tuple[int, ...] = _NONE,
        ahead: tuple[int, ...] = _NONE,
        copied: int | None = None,
    ) -> list[Task]:
        """All that comes before the routed experts.

        ahead: when what is known beforehand may begin. copied: the number of the first task of `copies`,
        where those are under way already.
        """
        weights, stages = self._layer(context, moe)
        groups, times = self._groups()
        tasks, ends = list[Task](), list[int]()

        def copy(name: str, load: Floats) -> int:
            nonlocal copied
            if copied is not None:
                copied += 1
                return copied - 1
            tasks.append(Task(name, load, ahead or after))
            return first + len(tasks) - 1

        ends += [copy(one.name, one.load) for one in weights]
        last = after
        for _ in range(groups):
            before, loads = last, list[int]()
            for one in stages:
                load = one.load * times
                if one.known:  # no stage waits for it but the one that uses it
                    loads.append(copy(one.name, load))
                    continue
                tasks.append(Task(one.name, load, (*before, *loads)))
                before, loads = (first + len(tasks) - 1,), []
            ends += before
            last = after if self.deployment.pipelined else before
        return [*tasks, Task("attention end", NOTHING, tuple(ends))]

    def experts(
        self, load: PlanLoad, *, first: int, after: tuple[int, ...], fetched: bool = False
    ) -> list[Task]:
        """The routed experts of the whole batch. fetched: their copies to the GPU are another task's work."""
        tasks, ends = list[Task](), list[int]()

        def put(name: str, load: Floats, after: tuple[int, ...], priority: int = 0) -> tuple[int, ...]:
            tasks.append(Task(name, load, after, priority))
            return (first + len(tasks) - 1,)

        if not fetched and load.fetch.any():
            ends += put("fetch", load.fetch, after)
        far, near = (load.host, load.gpu) if self.deployment.out == "gpu" else (load.gpu, load.host)
        if near.any():
            ends += put("experts", near, after)
        if far.any():  # hidden states go there and come back
            there, back = ("d2h", "h2d") if self.deployment.out == "gpu" else ("h2d", "d2h")
            # Before the weights: this copy is small, and others wait for it.
            sent = put("tokens", self._copy(there, self._hidden_bytes), after, priority=-1)
            computed = put("experts there", far, sent)
            ends += put("results", self._copy(back, self._hidden_bytes), computed)
        return [*tasks, Task("layer end", NOTHING, tuple(ends) or after)]

    def deferred(self, load: PlanLoad, *, first: int, after: tuple[int, ...]) -> list[Task]:
        """What a layer left for the next one to add, and its way to where that adds it."""
        if not load.deferred.any():
            return []
        tasks = [Task("deferred", load.deferred, after)]
        if self.deployment.out == "gpu":
            tasks.append(Task("deferred results", self._copy("h2d", self._hidden_bytes), (first,)))
        return tasks

    def head(
        self, *, first: int, after: tuple[int, ...], ahead: tuple[int, ...] = _NONE
    ) -> tuple[list[Task], Mapping[str, float]]:
        """The output over the vocabulary, on the GPU where there is one; and the bytes copied for it."""
        deployment, op = self.deployment, head_op(self.cost.shape, self.deployment.batch)
        if not self.cost.profile.gpu:
            return [Task("head", self._dense("cpu", op), after)], _bytes_of(())
        copies = []
        weights = (1 - deployment.dense_on_gpu) * op.weight_bytes
        if weights >= 1:
            copies.append(_Stage("head weights", self._copy("h2d", weights), True, "h2d", weights))
        if deployment.out != "gpu":
            hidden = hidden_bytes(self.cost.shape, deployment.batch)
            copies.append(_Stage("hidden", self._copy("h2d", hidden), False, "h2d", hidden))
        tasks = [Task(one.name, one.load, (ahead or after) if one.known else after) for one in copies]
        waits = (*after, *range(first, first + len(tasks)))
        return [*tasks, Task("head", self._dense("gpu", op), waits)], _bytes_of(copies)

    def copied_bytes(self, context: int, *, moe: bool) -> Mapping[str, float]:
        """Bytes to ("h2d") and from ("d2h") the GPU in one layer's attention, all micro-batches."""
        weights, stages = self._layer(context, moe)
        once, each = _bytes_of(weights), _bytes_of(stages)
        return {way: once[way] + each[way] * self.deployment.micro_batches for way in each}

    def expert_bytes(self, load: PlanLoad) -> Mapping[str, float]:
        """Bytes of hidden states to ("h2d") and from ("d2h") the GPU that a layer's experts cause."""
        one_way, on_gpu = self._hidden_bytes if self.cost.profile.gpu else 0.0, self.deployment.out == "gpu"
        both = float((load.host if on_gpu else load.gpu).any())
        return {"h2d": one_way * (both + (on_gpu and load.deferred.any())), "d2h": one_way * both}

    def ops(self, context: int, *, moe: bool) -> LayerOps:
        """Operations and bytes of one micro-batch."""
        requests = self.deployment.batch / self.deployment.micro_batches
        return layer_ops(self.cost.shape, requests, self.new_tokens, context, moe=moe)

    @property
    def _hidden_bytes(self) -> float:
        return hidden_bytes(self.cost.shape, self.deployment.batch * self.new_tokens)

    def _groups(self) -> tuple[int, float]:
        """Groups of micro-batches that are put on the clock, and how many micro-batches one stands for."""
        groups = min(self.deployment.micro_batches, _MOST_GROUPS)
        return groups, self.deployment.micro_batches / groups

    def _layer(self, context: int, moe: bool) -> tuple[tuple[_Stage, ...], tuple[_Stage, ...]]:
        """The copy of weights, once for all, and the stages of one micro-batch; remembered."""
        key = (context, moe)
        if key not in self._layers:
            stages = tuple(one for one in self._one_micro_batch(context, moe) if one.load.any())
            self._layers[key] = tuple(self._weights(moe)), stages
        return self._layers[key]

    def _one_micro_batch(self, context: int, moe: bool) -> list[_Stage]:
        deployment, attention = self.deployment, self.cost.shape.attention
        ops = self.ops(context, moe=moe)
        tokens = deployment.batch * self.new_tokens / deployment.micro_batches
        stages: list[_Stage] = []

        def cross(name: str, source: str, target: str, n_bytes: float, known: bool = False) -> None:
            if (source == "gpu") != (target == "gpu") and n_bytes >= 1:
                way = "d2h" if source == "gpu" else "h2d"
                stages.append(_Stage(name, self._copy(way, n_bytes), known, way, n_bytes))

        cross("hidden", deployment.out, deployment.qkv, hidden_bytes(self.cost.shape, tokens))
        stages.append(_Stage("qkv", self._dense(deployment.qkv, ops.qkv)))
        absorbed = self.new_tokens == 1 and attention.kind == "mla"
        query = attention.kv_rank + attention.rope_dim if absorbed else attention.qk_dim
        queries = ELEMENT_BYTES * tokens * attention.heads * query
        shared = deployment.attention_on_cpu if deployment.attention == "gpu" else 0.0
        if deployment.attention == "gpu":
            far = 1 - deployment.kv_on_gpu
            # A prompt's keys and values need no way back to the GPU that made them.
            if self.new_tokens == 1:
                cross("kv", "cpu", "gpu", max(0.0, far - shared) * ops.attention.kv_bytes, known=True)
            cross("new kv", deployment.qkv, "cpu", far * ops.new_kv_bytes)
            cross("queries", deployment.qkv, "gpu", queries + ops.new_kv_bytes)
            if shared:
                cross("queries for the CPU", deployment.qkv, "cpu", shared * queries)
        else:
            cross("queries and new kv", deployment.qkv, deployment.attention, queries + ops.new_kv_bytes)
        together = (
            self._shared(ops.attention, shared)
            if shared
            else self._dense(deployment.attention, ops.attention)
        )
        stages.append(_Stage("attention", together))
        value = attention.kv_rank if absorbed else attention.v_dim
        values = ELEMENT_BYTES * tokens * attention.heads * value
        if shared:
            cross("values of the CPU", "cpu", deployment.out, shared * values)
        cross("values", deployment.attention, deployment.out, values)
        stages.append(_Stage("out", self._dense(deployment.out, ops.out)))
        return stages

    def _weights(self, moe: bool) -> list[_Stage]:
        """What is streamed of the weights that the GPU uses, once for all micro-batches."""
        deployment, ops = self.deployment, self.ops(1, moe=moe)
        on_gpu = (deployment.qkv == "gpu") * ops.qkv.weight_bytes
        on_gpu += (deployment.out == "gpu") * ops.out.weight_bytes
        n_bytes = (1 - deployment.dense_on_gpu) * on_gpu
        if n_bytes < 1:
            return []
        return [_Stage("dense weights", self._copy("h2d", n_bytes), True, "h2d", n_bytes)]

    def _dense(self, where: str, op: Op) -> Floats:
        n_bytes = op.weight_bytes + op.kv_bytes
        if where == "ndp":
            return self.cost.near_load(op.flops, n_bytes)
        return self.cost.dense_load(_DOMAIN[where], op.flops, n_bytes)

    def _shared(self, op: Op, share: float) -> Floats:
        """Attention of the GPU's requests and of the CPU's, side by side."""
        here, there = (Op(part * op.flops, 0.0, part * op.kv_bytes) for part in (1 - share, share))
        return self._dense("gpu", here) + self._dense("cpu", there)

    def _copy(self, direction: str, n_bytes: float) -> Floats:
        """Nothing to copy on a machine without a GPU."""
        return self.cost.transfer_load(direction, n_bytes) if self.cost.profile.gpu else NOTHING


def _bytes_of(stages: Iterable[_Stage]) -> dict[str, float]:
    found = {"h2d": 0.0, "d2h": 0.0}
    for one in stages:
        if one.direction:
            found[one.direction] += one.n_bytes
    return found
