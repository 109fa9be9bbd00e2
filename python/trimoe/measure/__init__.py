"""Benchmarks, calibration and forecasts of this machine."""
