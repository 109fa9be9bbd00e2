"""`trimoe trace`: routing traces, recorded, measured and generated."""

from trimoe.cli.trace import generate, record, stats  # noqa: F401 - they register
from trimoe.cli.trace.options import trace_app

__all__ = ["trace_app"]
