"""`trimoe policy`: what policies decide, and how well."""

from trimoe.cli.policy import stratify  # noqa: F401 - it registers
from trimoe.cli.policy.options import policy_app

__all__ = ["policy_app"]
