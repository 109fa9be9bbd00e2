"""`trimoe simulate`, `compare` and `plan`: what systems would do on machines that one need not have."""

from trimoe.cli.simulator.compare import compare
from trimoe.cli.simulator.plan import plan
from trimoe.cli.simulator.simulate import simulate

__all__ = ["compare", "plan", "simulate"]
