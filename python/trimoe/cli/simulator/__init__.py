"""`trimoe simulate`, `compare` and `plan`: systems on hardware that you don't own."""

from trimoe.cli.simulator.compare import compare
from trimoe.cli.simulator.plan import plan
from trimoe.cli.simulator.simulate import simulate

__all__ = ["compare", "plan", "simulate"]
