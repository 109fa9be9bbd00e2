"""Has a policy decide about a model that runs: which step it is in, and what the plan of a call is."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats
from trimoe.domains import CPU, FIRST_DIMM, SPLIT
from trimoe.errors import InputError
from trimoe.executor.engine import Engine
from trimoe.placement import LayerPlan, Progress, Residency
from trimoe.policies import Deployment, Foresight, LayerStep, Policy, Workload
from trimoe.runtime.expert_homes import ExpertHomes
from trimoe.runtime.machine_clock import MachineClock
from trimoe.runtime.policy_use import PolicyUse
from trimoe.runtime.telemetry import Telemetry

__all__ = ["Driver"]

# After so many steps the clock begins anew, or a long text would fill the memory with its past.
_STEPS = 512


class Driver:
    """The loop of `trimoe.executor` with a running model in front and this machine behind.

    Args:
        policy: that decides.
        work: that the deployments are for.
        deployments: by phase.
        popularity: [MoE layers, E], in other prompts.
        foresight: of later layers.
        known: what else the policy asks for of the layer under way, fields of `LayerStep`.
        homes: of experts on DIMMs, if there are any.
        telemetry: of the layers.
        keep: whether engines, and all intervals, are kept.

    Attributes:
        engines: of all phases so far where they are kept, else the last. use: since the last `reset`.
    """

    def __init__(
        self,
        policy: Policy,
        work: Workload,
        deployments: Mapping[str, Deployment],
        popularity: Floats,
        foresight: Foresight,
        known: Callable[[], Mapping[str, Any]],
        homes: ExpertHomes | None,
        telemetry: Telemetry,
        *,
        keep: bool,
    ) -> None:
        self.policy, self.work, self.engines = policy, work, list[Engine]()
        self.use = PolicyUse(policy.name)
        self._deployments, self._popularity, self._foresight = deployments, popularity, foresight
        self._known = known
        self._homes, self._telemetry, self._keep = homes, telemetry, keep
        self._lock = threading.Lock()
        self._context = 0  # tokens of each request, once the step is done
        self._in_step = False
        self._whole = True  # False while an answer is carried out, and after that if it was cut off
        self._answer: tuple[LayerStep, LayerPlan] | None = None  # of a call that is under way

    def reset(self) -> None:
        """Counts from here on; `finish` first, or what is under way counts as later."""
        self.use = PolicyUse(self.policy.name)
        self._telemetry.reset()

    def finish(self) -> None:
        """Ends the step that the model has ended: nothing of it is missing in the figures then."""
        with self._lock:
            self._end_step()
            if self.engines:
                self.engines[-1].finish()
                self._count()

    def decide(self, layer: int, counts: npt.NDArray[np.int64], tokens: int) -> npt.NDArray[np.int32]:
        """The plan of a call of one MoE layer, [E] codes, for the rows of each expert, [E].

        Only what the work waits for: all else is for `carry_out`.

        Raises:
            InputError: this is not the layer whose turn it is.
        """
        with self._lock:
            begun_ns = time.perf_counter_ns()
            if layer == 0:
                self._begin_step(tokens)
            elif self._answer is not None and self._answer[0].layer == layer - 1:
                self._carry_out()  # nobody did after that call: a bare one of the op
            if not self._in_step or self._engine.done != layer or self._answer is not None:
                raise InputError(
                    expected="the MoE layers of one forward pass after the other, in their order",
                    got=f"the one with index {layer}",
                    hint="one thread at a time, or close() of what `attach` returned",
                )
            asked_ns = time.perf_counter_ns()
            self._answer = self._engine.executor.ask(counts, self._foresight, **self._known())
            codes = self._possible(layer, self._answer[1])
            self.use.decided(time.perf_counter_ns() - asked_ns)
            self.use.bookkeeping_ns += asked_ns - begun_ns
            return codes

    def carry_out(self) -> None:
        """After the call: what it means for the clock, moves of experts, and the next layer's question.

        Raises:
            PlacementError: the policy broke a rule.
        """
        with self._lock:
            self._carry_out()

    def _carry_out(self) -> None:
        if self._answer is None:
            return
        executor, clock = self._engine.executor, self._clock
        begun_ns = time.perf_counter_ns()
        moving_ns, thinking_ns = clock.moving_ns, executor.background_ns
        answer, self._answer, self._whole = self._answer, None, False
        self._engine.carry_out(*answer)
        self._engine.prepare(self._context)
        self._whole = True
        moving_ns, thinking_ns = clock.moving_ns - moving_ns, executor.background_ns - thinking_ns
        self.use.moving_ns += moving_ns
        self.use.background_ns += thinking_ns
        self.use.bookkeeping_ns += time.perf_counter_ns() - begun_ns - moving_ns - thinking_ns

    def _begin_step(self, tokens: int) -> None:
        self._end_step()
        batch = self.work.batch
        phase, each = ("prefill", -(-tokens // batch)) if tokens > batch else ("decode", 1)
        self._context = each if phase == "prefill" else self._context + each
        last = self.engines[-1] if self.engines else None
        if last is None or phase == "prefill" or last.phase != phase or not self._whole:
            residencies = self.policy.begin(phase, self._deployments[phase], self._popularity)
            if self._homes is not None:
                self._homes.lay_out(residencies)
            self._begin_engine(phase, residencies, each)
        elif len(self._clock.step_ends) >= _STEPS and not self._keep:
            last.drain()
            self._begin_engine(phase, last.residencies, each)
            self._engine.steps = last.steps  # the policy counts on
        self._engine.prepare(self._context)
        self._in_step = True

    def _begin_engine(self, phase: str, residencies: Sequence[Residency], each: int) -> None:
        if self.engines:
            self.engines[-1].finish()
            self._count()
        cost, deployment = self.policy.cost, self._deployments[phase]
        self._clock = MachineClock(cost, residencies, self._homes, self._telemetry, keep=self._keep)
        self._ended, self._gpu_experts, self._hits = Counter[Progress](), 0, 0
        self._engine = Engine(self.policy, phase, deployment, residencies, each, self._clock)
        self._whole = True
        self.engines = [*self.engines, self._engine] if self._keep else [self._engine]

    def _end_step(self) -> None:
        if self._in_step:
            self._in_step = False
            self._carry_out()  # the last call was a bare one, or has failed: it was decided all the same
            self._engine.end_step(self._context)

    def _count(self) -> None:
        """What the last engine has done since this was called before."""
        ended, moved = Counter(self.engines[-1].executor.ended), self._clock.moved
        self.use.moves.update({one.value: n for one, n in (ended - self._ended).items()})
        self.use.gpu_experts += moved.gpu_experts - self._gpu_experts
        self.use.hits += moved.gpu_hits - self._hits
        self._ended, self._gpu_experts, self._hits = ended, moved.gpu_experts, moved.gpu_hits

    def _possible(self, layer: int, plan: LayerPlan) -> npt.NDArray[np.int32]:
        """The plan's codes; on the CPU what DIMMs cannot run since one of them failed."""
        if plan.deferred:
            self.use.off.add("deferral")
        codes = plan.domain.astype(np.int32)
        if self._homes is not None and self._homes.failed:
            for expert in np.nonzero((codes >= FIRST_DIMM) | (codes == SPLIT))[0].tolist():
                if not self._homes.can_run(layer, expert, int(codes[expert])):
                    codes[expert] = CPU
        return codes
