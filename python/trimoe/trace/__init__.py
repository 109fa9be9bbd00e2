"""Routing traces: record, keep, measure and generate which experts tokens choose. No torch."""

from trimoe.trace.parquet import FORMAT_VERSION, check_output, check_parquet, read_trace, write_trace
from trimoe.trace.routing import NO_EXPERT, Trace, TraceMeta

__all__ = [
    "FORMAT_VERSION",
    "NO_EXPERT",
    "Trace",
    "TraceMeta",
    "check_output",
    "check_parquet",
    "read_trace",
    "write_trace",
]
