"""TriMoE's greedy and refinement in plain numpy, in single precision as `csrc/assign` computes them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimoe.arrays import Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.policies.base.occupancy import Loads

LANES = 8


@dataclass
class Option:
    domain: int
    row: Ints


@dataclass
class ReferencePlanner:
    """The same settings as `trimoe._assign.Planner`, without the search."""

    cost: CostModel
    with_cpu: bool = True
    striped_on_dimm_up_to: int = 0
    greedy: bool = True
    rounds: int = 256
    pairs: int = 16
    gain: float = 1e-5
    choice: list[int] = field(default_factory=list)

    def decide(self, counts: Ints, resident: Ints, layout: Ints) -> tuple[list[int], float, int]:
        """Domain of each expert (-1: idle), the makespan, the rounds made."""
        active = sorted(np.nonzero(counts)[0].tolist(), key=lambda one: (-counts[one], one))
        self.options = self._options(active, counts, resident, layout)
        width = -(-len(self.cost.resources) // LANES) * LANES
        self.load = np.zeros(width, np.float32)
        self.choice = []
        for options in self.options:
            self.choice.append(self._begin(options))
            self.load = self.load + options[self.choice[-1]].row
        rounds = 0
        while rounds < self.rounds and self._round():
            rounds += 1
        domains = [-1] * len(counts)
        for one, options, chosen in zip(active, self.options, self.choice, strict=True):
            domains[one] = options[chosen].domain
        return domains, float(self.load.max()), rounds

    def _options(self, active: list[int], counts: Ints, resident: Ints, layout: Ints) -> list[list[Option]]:
        loads, n_dimms = Loads(self.cost), self.cost.resources.n_dimms
        has_gpu = self.cost.profile.gpu is not None
        home = np.zeros(n_dimms, np.float32)
        for one in active:
            place, tokens = int(layout[one]), int(counts[one])
            if n_dimms and place != STRIPED and not resident[one]:
                row = loads.expert(FIRST_DIMM + place, tokens, place)
                home[place] += np.float32(row[self.cost.resources.dimm(place)])
        emptiest = np.argsort(home, kind="stable").tolist()
        result = []
        for index, one in enumerate(active):
            place, tokens = int(layout[one]), int(counts[one])
            options = []
            if has_gpu:
                fetch = 0.0 if resident[one] else loads.fetch(place)
                options.append(Option(GPU, self._row(loads.expert(GPU, tokens, STRIPED) + fetch)))
            if self.with_cpu:
                options.append(Option(CPU, self._row(loads.expert(CPU, tokens, place))))
            if place == STRIPED and len(active) <= self.striped_on_dimm_up_to:
                dimm = emptiest[(len(active) - 1 - index) % n_dimms]
                options.append(
                    Option(FIRST_DIMM + dimm, self._row(loads.expert(FIRST_DIMM + dimm, tokens, STRIPED)))
                )
            elif place != STRIPED and n_dimms:
                options.append(
                    Option(FIRST_DIMM + place, self._row(loads.expert(FIRST_DIMM + place, tokens, place)))
                )
            result.append(options)
        return result

    def _row(self, row: Ints) -> Ints:
        width = -(-len(row) // LANES) * LANES
        return np.pad(row.astype(np.float32), (0, width - len(row)))

    def _begin(self, options: list[Option]) -> int:
        def key(index: int) -> tuple[float, ...]:
            row = options[index].row
            return ((self.load + row).max() if self.greedy else 0.0, row.max(), index)

        return min(range(len(options)), key=key)

    def _round(self) -> bool:
        peak = self.load.max()
        if peak <= 0:
            return False
        scale, self.best = np.float32(1) / peak, None
        self.limit, self.spread = peak * (np.float32(1) - np.float32(self.gain)), np.float32(0)
        firsts = []
        for i, to in self._reliefs(self.load, -1):
            after = self._after(self.load, i, to)
            firsts.append((after[self.options[i][to].row.argmax()], i, to))
            self._consider(after, scale, [(i, to)])
        if self.best is None:
            for _, i, to in sorted(firsts)[: self.pairs]:
                between = self._after(self.load, i, to)
                for j, second in self._reliefs(between, i):
                    self._consider(self._after(between, j, second), scale, [(i, to), (j, second)])
        for i, to in self.best or ():
            self.load = self._after(self.load, i, to)
            self.choice[i] = to
        return self.best is not None

    def _reliefs(self, load: Ints, but: int) -> list[tuple[int, int]]:
        busy = int(load.argmax())
        found = []
        for i, options in enumerate(self.options):
            from_ns = options[self.choice[i]].row[busy]
            found += [(i, to) for to, one in enumerate(options) if i != but and one.row[busy] < from_ns]
        return found

    def _after(self, load: Ints, i: int, to: int) -> Ints:
        return load - self.options[i][self.choice[i]].row + self.options[i][to].row

    def _consider(self, after: Ints, scale: np.float32, moves: list[tuple[int, int]]) -> None:
        peak = after.max()
        lanes = np.zeros(LANES, np.float32)
        for block in ((after * scale) ** 2).reshape(-1, LANES):
            fourth = block * block
            lanes += fourth * fourth
        spread = np.float32(0)
        for lane in lanes:
            spread += lane
        if peak < self.limit or (self.best is not None and peak == self.limit and spread < self.spread):
            self.limit, self.spread, self.best = peak, spread, moves
