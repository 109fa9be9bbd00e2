"""What a policy decides about one layer."""

from __future__ import annotations

from dataclasses import dataclass

from trimoe.arrays import Ints

__all__ = ["Keep", "LayerPlan"]


@dataclass(frozen=True)
class Keep:
    """A fetched expert stays in GPU memory, in the slot of `evict` (-1: in a free one)."""

    expert: int
    evict: int = -1


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Where each expert of a layer runs in this step.

    domain: [E] int32, codes of `trimoe.domains`; what the op takes.
    order: active experts, in the order in which their domains run them.
    fetch: experts that are copied to the GPU for this step, in order; may include inactive experts (a system
    that streams whole layers fetches before routing). The step waits for a prefetch that is under way.
    keep: which of those stay.
    deferred: (expert, tokens) on the CPU, each expert once: of its tokens so many are computed while the next
    layer runs, and added there. Approximate; such a system flags it.
    """

    domain: Ints
    order: tuple[int, ...]
    fetch: tuple[int, ...] = ()
    keep: tuple[Keep, ...] = ()
    deferred: tuple[tuple[int, int], ...] = ()

    def on(self, domain: int) -> tuple[int, ...]:
        """The experts of a domain, in order."""
        where = self.domain.tolist()
        return tuple(one for one in self.order if where[one] == domain)
