"""Offline planning: what a step would take, which deployment is best, and the one of single-batch systems."""
