"""Routing traces: record, keep, measure and generate which experts tokens choose. No torch."""

from trimoe.trace.generator import GeneratorSpec, generate_trace
from trimoe.trace.parquet import FORMAT_VERSION, check_output, check_parquet, read_trace, write_trace
from trimoe.trace.presets import PRESETS, Preset, find_preset
from trimoe.trace.routing import NO_EXPERT, Trace, TraceMeta
from trimoe.trace.skew import ClassRule
from trimoe.trace.stats import StatsOptions, TraceStats, trace_stats

__all__ = [
    "FORMAT_VERSION",
    "NO_EXPERT",
    "PRESETS",
    "ClassRule",
    "GeneratorSpec",
    "Preset",
    "StatsOptions",
    "Trace",
    "TraceMeta",
    "TraceStats",
    "check_output",
    "check_parquet",
    "find_preset",
    "generate_trace",
    "read_trace",
    "trace_stats",
    "write_trace",
]
