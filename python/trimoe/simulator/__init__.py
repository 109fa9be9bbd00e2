"""Runs a policy's decisions on the cost core's clock: what would a system gain? Needs no torch."""
