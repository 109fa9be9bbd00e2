"""Where experts run, where they lie, and how they move: what policies decide and what holds their rules."""

from trimoe.placement.layer_plan import Keep, LayerPlan
from trimoe.placement.moves import Move, Prefetch, Progress, Relayout, Ticket
from trimoe.placement.residency import Residency
from trimoe.placement.rules import PlacementError

__all__ = [
    "Keep",
    "LayerPlan",
    "Move",
    "PlacementError",
    "Prefetch",
    "Progress",
    "Relayout",
    "Residency",
    "Ticket",
]
