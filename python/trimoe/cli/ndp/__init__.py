"""`trimoe ndp`: the emulator of DIMMs with near-data processing, part by part."""

from trimoe.cli.ndp import contention, dram, expert, step, sweep, trace, validate  # noqa: F401 - they register
from trimoe.cli.ndp.options import ndp_app

__all__ = ["ndp_app"]
