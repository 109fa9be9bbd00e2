"""Generators that tests and benches share."""
