"""One layer's experts, each a task of its own, for pictures: the simulator clocks their sums."""

from __future__ import annotations

from trimoe.arrays import Ints
from trimoe.cost import Clock, CostModel, Task
from trimoe.domains import GPU, SPLIT, STRIPED
from trimoe.placement import LayerPlan, Residency
from trimoe.policies import Loads

__all__ = ["layer_detail"]


def layer_detail(
    cost: CostModel,
    plan: LayerPlan,
    counts: Ints,
    state: Residency,
    batches: int = 1,
    *,
    wait_for_weights: bool = False,
) -> Clock:
    """Fetches and experts on a clock that has run; its `now_ns` is `Loads.of_plan(...).makespan_ns`.

    Each domain takes its own experts in the plan's order, the GPU the residents first and then the fetched
    ones in the order of their fetches.

    Args:
        cost: of the model on the machine. plan, counts, state: of the layer, counts [E].
        batches: that an expert's tokens are computed in.
        wait_for_weights: an expert's compute begins only when all of its weights have come, instead of while
            they come; then the layer takes longer than the cost core says, by one expert at most where
            fetches are what it waits for.
    """
    loads, tasks = Loads(cost, batches), list[Task]()
    fetched: dict[int, int] = {}
    for one in plan.fetch:
        fetched[one] = len(tasks)
        tasks.append(Task(f"fetch {one}", loads.fetch(int(state.layout[one]))))
    on_gpu = plan.on(GPU)
    order = [one for one in on_gpu if one not in fetched]
    order += sorted((one for one in on_gpu if one in fetched), key=fetched.__getitem__)
    order += [one for one in plan.order if plan.domain[one] != GPU]
    for one in order:
        domain, tokens = int(plan.domain[one]), int(counts[one])
        layout = STRIPED if domain in (GPU, SPLIT) else int(state.layout[one])
        after = (fetched[one],) if wait_for_weights and one in fetched and domain == GPU else ()
        name = f"expert {one}, {tokens} token" + "s" * (tokens > 1)
        tasks.append(Task(name, loads.expert(domain, tokens, layout), after))
    clock = Clock(len(cost.resources))
    clock.extend(tasks)
    clock.run()
    return clock
