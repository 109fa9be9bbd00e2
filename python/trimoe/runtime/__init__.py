"""Runs models and layers on the domains of this machine and says how it went."""
