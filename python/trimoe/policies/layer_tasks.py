"""The tasks of one layer of a deployment: attention in micro-batches, then the experts.

Planners put them on a schedule to compare deployments, the simulator on its clock: one description for both.
"""

from __future__ import annotations

from trimoe.cost import CPU, GPU, CostModel, Task
from trimoe.cost.layer_ops import ELEMENT_BYTES, LayerOps, Op, hidden_bytes, layer_ops
from trimoe.cost.model import Parts
from trimoe.policies.deployment import Deployment
from trimoe.policies.loads import Floats, PlanLoad

__all__ = ["LayerTasks"]

# More micro-batches than this overlap as well as this many, each of several.
_MOST_GROUPS = 8
_DOMAIN = {"cpu": CPU, "gpu": GPU}
Stage = tuple[str, Parts, bool]  # name, what one micro-batch occupies, whether it is known ahead


class LayerTasks:
    """Layers of one deployment.

    Args:
        cost: of the model on the machine.
        deployment: what is fixed.
        new_tokens: of each request: 1 at decode, the prompt's at prefill.

    Tasks are numbered from `first` on, and the last one of each list is the moment when all of them ended.
    """

    def __init__(self, cost: CostModel, deployment: Deployment, new_tokens: int) -> None:
        self.cost, self.deployment, self.new_tokens = cost, deployment, new_tokens
        self._stages: dict[tuple[int, bool], list[Stage]] = {}

    def attention(
        self, context: int, *, moe: bool, first: int, after: tuple[int, ...] = (), ahead: tuple[int, ...] = ()
    ) -> list[Task]:
        """All that comes before the routed experts; `ahead`: when what is known beforehand may begin."""
        key = (context, moe)
        if key not in self._stages:
            self._stages[key] = self._one_micro_batch(context, moe)
        deployment, tasks = self.deployment, list[Task]()
        groups = min(deployment.micro_batches, _MOST_GROUPS)
        times = deployment.micro_batches / groups
        weights = self._weights(moe)
        last: tuple[int, ...] = after
        ends = []
        if weights:
            ends.append(first)
            tasks.append(Task("dense weights", weights, ahead or after))
        for _ in range(groups):
            before, loads = last, list[int]()
            for name, parts, known in self._stages[key]:
                index = first + len(tasks)
                many = tuple((resource, ns * times) for resource, ns in parts)
                if known:  # no stage waits for it but the one that uses it
                    tasks.append(Task(name, many, ahead or after))
                    loads.append(index)
                else:
                    tasks.append(Task(name, many, (*before, *loads)))
                    before, loads = (index,), []
            ends.extend(before)
            last = after if deployment.pipelined else before
        return [*tasks, Task("attention end", (), tuple(ends))]

    def experts(
        self, load: PlanLoad, *, first: int, after: tuple[int, ...], fetched: bool = False
    ) -> list[Task]:
        """The routed experts of the whole batch. fetched: their copies to the GPU are another task's work."""
        tokens = self.deployment.batch * self.new_tokens
        tasks, ends = list[Task](), list[int]()

        def put(name: str, parts: Parts, after: tuple[int, ...]) -> tuple[int, ...]:
            tasks.append(Task(name, parts, after))
            return (first + len(tasks) - 1,)

        if not fetched and load.fetch.any():
            ends += put("fetch", _parts(load.fetch), after)
        far, near = (load.host, load.gpu) if self.deployment.out == "gpu" else (load.gpu, load.host)
        if near.any():
            ends += put("experts", _parts(near), after)
        if far.any():  # hidden states go there and come back
            there, back = ("d2h", "h2d") if self.deployment.out == "gpu" else ("h2d", "d2h")
            one_way = hidden_bytes(self.cost.shape, tokens)
            sent = put("tokens", self._copy(there, one_way), after)
            computed = put("experts there", _parts(far), sent)
            ends += put("results", self._copy(back, one_way), computed)
        return [*tasks, Task("layer end", (), tuple(ends) or after)]

    def ops(self, context: int, *, moe: bool) -> LayerOps:
        """Operations and bytes of one micro-batch."""
        requests = -(-self.deployment.batch // self.deployment.micro_batches)
        return layer_ops(self.cost.shape, requests, self.new_tokens, context, moe=moe)

    def _one_micro_batch(self, context: int, moe: bool) -> list[Stage]:
        deployment, attention = self.deployment, self.cost.shape.attention
        ops = self.ops(context, moe=moe)
        tokens = -(-deployment.batch // deployment.micro_batches) * self.new_tokens
        stages: list[Stage] = []

        def cross(name: str, source: str, target: str, n_bytes: float, known: bool = False) -> None:
            if (source == "gpu") != (target == "gpu"):
                stages.append((name, self._copy("d2h" if source == "gpu" else "h2d", n_bytes), known))

        cross("hidden", deployment.out, deployment.qkv, hidden_bytes(self.cost.shape, tokens))
        stages.append(("qkv", self._dense(deployment.qkv, ops.qkv), False))
        absorbed = self.new_tokens == 1 and attention.kind == "mla"
        query = attention.kv_rank + attention.rope_dim if absorbed else attention.qk_dim
        queries = ELEMENT_BYTES * tokens * attention.heads * query
        far = 1 - deployment.kv_on_gpu if deployment.attention == "gpu" else 1.0
        shared = deployment.attention_on_cpu if deployment.attention == "gpu" else 0.0
        if deployment.attention == "gpu":
            # A prompt's keys and values need no way back to the GPU that made them.
            if self.new_tokens == 1:
                cross("kv", "cpu", "gpu", max(0.0, far - shared) * ops.attention.kv_bytes, known=True)
            cross("new kv", deployment.qkv, "cpu", far * ops.new_kv_bytes)
            cross("queries", deployment.qkv, "gpu", queries + ops.new_kv_bytes)
            if shared:
                cross("queries for the CPU", deployment.qkv, "cpu", shared * queries)
        else:
            cross("queries and new kv", deployment.qkv, deployment.attention, queries + ops.new_kv_bytes)
        if shared:
            stages.append(("attention", self._shared(ops.attention, shared), False))
        else:
            stages.append(("attention", self._dense(deployment.attention, ops.attention), False))
        value = attention.kv_rank if absorbed else attention.v_dim
        values = ELEMENT_BYTES * tokens * attention.heads * value
        if shared:
            cross("values of the CPU", "cpu", deployment.out, shared * values)
        cross("values", deployment.attention, deployment.out, values)
        stages.append(("out", self._dense(deployment.out, ops.out), False))
        return [stage for stage in stages if stage[1]]

    def _weights(self, moe: bool) -> Parts:
        """What is streamed of the weights that the GPU uses, once for all micro-batches."""
        deployment, ops = self.deployment, self.ops(1, moe=moe)
        on_gpu = (deployment.qkv == "gpu") * ops.qkv.weight_bytes + (
            deployment.out == "gpu"
        ) * ops.out.weight_bytes
        n_bytes = (1 - deployment.dense_on_gpu) * on_gpu
        return self._copy("h2d", n_bytes) if n_bytes > 1 else ()

    def _dense(self, where: str, op: Op) -> Parts:
        n_bytes = op.weight_bytes + op.kv_bytes
        if where == "ndp":
            return self.cost.near_parts(op.flops, n_bytes)
        return self.cost.dense_parts(_DOMAIN[where], op.flops, n_bytes)

    def _shared(self, op: Op, share: float) -> Parts:
        """Attention of the GPU's requests and of the CPU's, side by side."""
        here, there = (Op(part * op.flops, 0.0, part * op.kv_bytes) for part in (1 - share, share))
        return (*self._dense("gpu", here), *self._dense("cpu", there))

    def _copy(self, direction: str, n_bytes: float) -> Parts:
        """Nothing to copy on a machine without a GPU."""
        return self.cost.transfer_parts(direction, n_bytes) if self.cost.profile.gpu else ()


def _parts(row: Floats) -> Parts:
    return tuple((index, ns) for index, ns in enumerate(row.tolist()) if ns)
